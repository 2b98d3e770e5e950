"""Options that a command takes for one of its measures and another has no use for: given there, they are refused."""

import argparse
from collections.abc import Collection

ALWAYS = {"model", "call"}


def refuse_unused(parser: argparse.ArgumentParser, options: argparse.Namespace, uses: Collection[str]) -> None:
    """End with a sentence and exit code 2 where an option is set that is not one of `uses` (names in `options`)."""
    names = [
        name
        for name, value in vars(options).items()
        if name not in ALWAYS and name not in uses and value != parser.get_default(name)
    ]
    if not names:
        return
    flags = {action.dest: action.option_strings[-1] for action in parser._actions if action.option_strings}
    given = ", ".join(flags[name] for name in names)
    taken = ", ".join(sorted(flags[name] for name in uses))
    parser.error(f"{options.model or 'a measurement with --model and --data'} has no use for {given}; it takes {taken}")
