"""The argument parser of `unclip` and its commands: argparse's, but for two habits of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, TypeAlias

from ..unclip_core.weights.choices import AUTO

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
"""Where a sub-command is added."""


class Parser(argparse.ArgumentParser):
    """A parser whose sub-commands refuse unknown options themselves and may have their options before their name.

    argparse leaves what a sub-command does not know to the outermost parser, which then prints its own usage and not
    the one that tells which options there are.
    """

    _measures: Commands | None = None

    def add_measures(self, **settings: Any) -> Commands:
        """Add the place for sub-commands whose name may stand anywhere; `settings` as of `add_subparsers`."""
        self._measures = self.add_subparsers(**settings)
        return self._measures

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; an argument that is not known ends the program with this parser's usage and exit code 2."""
        if args is not None and self._measures is not None:
            args = self._name_first(args, self._measures)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, []

    def _name_first(self, words: Sequence[str], measures: Commands) -> list[str]:
        """The words with the first that is no option and no option's value moved to the front.

        Without such a word, options of the measures are refused: argparse would take their values for the name.
        """
        parsers = (self, *measures.choices.values())
        index, foreign = 0, []
        while index < len(words):
            if not words[index].startswith("-"):
                return [words[index], *words[:index], *words[index + 1 :]]
            if self.option(words[index]) is None:
                foreign.append(words[index])
            index += 1 + _value_count(parsers, words[index], words[index + 1 :])
        if foreign and not measures.required:
            self.error(f"unrecognized arguments: {' '.join(foreign)}")
        return list(words)

    def option(self, flag: str) -> argparse.Action | None:
        """The option of that name, or that `flag` abbreviates; None without one."""
        known, flag = self._option_string_actions, flag.partition("=")[0]
        return known.get(flag) or next((known[name] for name in known if name.startswith(flag)), None)


def add_device(command: Any) -> None:
    """Add --device to a parser, or to a group of its options."""
    command.add_argument(
        "--device",
        default=AUTO,
        metavar="DEVICE",
        help="what the nets run on: cpu, cuda, cuda:1, xpu or mps (default: %(default)s, the best there is)",
    )


def add_ray(command: Any) -> None:
    """Add --ray and what goes with it to a parser, or to a group of its options."""
    command.add_argument(
        "--ray",
        action="store_true",
        help='share the work among processes, or the machines of a cluster, by Ray (pip install "ray[data]>=2.48"); '
        "data, model and output have to be where every machine finds them",
    )
    command.add_argument(
        "--ray-workers", default="1", metavar="N or MIN:MAX", help="processes of --ray (default: %(default)s)"
    )
    command.add_argument(
        "--gpus-per-worker", type=float, default=0.0, help="0 works on the CPU, 0.5 puts two on a GPU (default: 0)"
    )
    command.add_argument("--address", help="of a Ray cluster, or auto (default: Ray is started here and stopped)")


_OF_RAY: dict[str, Any] = {"ray_workers": "1", "gpus_per_worker": 0.0, "address": None}
_NOT_OF_RAY: dict[str, tuple[Any, str]] = {
    "device": (AUTO, "workers compute on the CPU, or on GPUs by --gpus-per-worker"),
    "workers": (0, "each of --ray-workers reads its own images"),
}
"""Options beside those of `add_ray` that are not read with --ray: their defaults, and why."""


def check_ray(options: argparse.Namespace) -> None:
    """See that --ray, of `add_ray`, is there for the options that need it, and that the others are read with it.

    Raises:
        ValueError: an option was given that would do nothing.
    """
    if options.ray:
        unread = {
            name: why for name, (default, why) in _NOT_OF_RAY.items() if getattr(options, name, default) != default
        }
        if unread:
            told = ", ".join(f"--{name} ({why})" for name, why in unread.items())
            raise ValueError(f"--ray does not read {told}: leave it out.")
    elif given := [name for name, default in _OF_RAY.items() if getattr(options, name) != default]:
        told = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"Without --ray nothing reads {told}: add --ray, or leave it out.")


def read_workers(text: str, option: str = "--workers") -> tuple[int, int]:
    """Read "4" or "1:8" as the fewest and the most workers.

    Raises:
        ValueError: it is neither.
    """
    low, _, high = text.partition(":")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise ValueError(f"{option} is '{text}'; it must be a number, or two as in 1:8.") from None


def _value_count(parsers: Sequence[Parser], flag: str, following: Sequence[str]) -> int:
    """How many of the words behind a flag are its values, by the first parser that has such an option."""
    action = next((found for parser in parsers if (found := parser.option(flag)) is not None), None)
    if action is None or "=" in flag:
        return 0
    if action.nargs == argparse.ONE_OR_MORE:
        return next((count for count, word in enumerate(following) if word.startswith("-")), len(following))
    return 1 if action.nargs is None else int(action.nargs)
