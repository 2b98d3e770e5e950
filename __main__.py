"""The `unclip` command: reads its arguments; each sub-command calls one function."""

import argparse
import sys
from collections.abc import Sequence

from .cli.measuring import add_bench, add_evaluate
from .cli.training import add_embed, add_train
from .cli.weights import add_convert, add_download
from .cli.workflows import add_queue, add_run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's own); returns the exit code."""
    options = _parser().parse_args(arguments)
    return options.call(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unclip", description="unCLIP without ComfyUI's canvas.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (add_run, add_queue, add_train, add_embed, add_evaluate, add_bench, add_convert, add_download):
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
