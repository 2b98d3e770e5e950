"""The door of the `unclip` command: reads the arguments and calls the sub-command's function."""

import sys
from collections.abc import Sequence

from .cli.bench import add_bench
from .cli.data import add_data
from .cli.evaluate import add_evaluate
from .cli.map import add_map
from .cli.parser import Parser
from .cli.queue import add_queue
from .cli.run import add_run
from .cli.training import add_embed, add_train
from .cli.weights import add_convert, add_download
from .unclip_core.output import safe_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's own) and return the exit code."""
    with safe_streams():
        options = _parser().parse_args(arguments)
        return int(options.call(options))


def _parser() -> Parser:
    parser = Parser(prog="unclip", description="unCLIP without ComfyUI's canvas.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    stages = (
        add_run,
        add_map,
        add_queue,
        add_train,
        add_embed,
        add_data,
        add_evaluate,
        add_bench,
        add_convert,
        add_download,
    )
    for add in stages:
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
