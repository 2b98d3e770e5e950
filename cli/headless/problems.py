"""What can be wrong with a workflow, in words that name the node."""

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: a stable word for programs, such as "missing_input".
        message: a sentence for people.
        node: the id of the node it is in; None for the whole workflow.
        title: that node's title.
        input: the input of that node; None where several or none are concerned.
        traceback: of errors that the code did not expect.
    """

    kind: str
    message: str
    node: str | None = None
    title: str | None = None
    input: str | None = None
    traceback: str | None = None

    def __str__(self) -> str:
        """Say it in one sentence, led by the node's id and title."""
        if self.node is None:
            return self.message
        place = f"node {self.node} ({self.title})"
        return f"{place}, {self.input}: {self.message}" if self.input else f"{place}: {self.message}"

    def as_dict(self) -> dict[str, str | None]:
        """Return the fields that are set, for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def cut(text: str, most: int = 100) -> str:
    """Shorten a text to `most` characters, as an error quotes it: a workflow may hold megabytes in one place."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that may have been meant; None where none is near."""
    # Comparing long texts would take hours.
    return next(iter(difflib.get_close_matches(name[:100], known, n=1)), None)


def no_such_input(name: str, known: Iterable[str]) -> str:
    """Say that a node does not have an input, with the one that may have been meant."""
    known = list(known)
    near = nearest(name, known)
    meant = f"Did you mean '{near}'? " if near else ""
    return f"no such input. {meant}It has: {', '.join(known)}."


class InvalidWorkflow(ValueError):
    """A workflow that cannot be run; `problems` holds everything that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
