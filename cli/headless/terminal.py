"""A run as lines of text for a person: progress on one stream, the summary as text."""

from __future__ import annotations

import sys
from typing import TextIO

from .run import Event, Report


class Terminal:
    """Prints a line as each node starts; the nodes show the progress of their steps themselves."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def __call__(self, event: Event) -> None:
        """Print one event."""
        if event.kind == "done":
            return
        ending = "  (as before)" if event.kind == "cached" else ""
        print(f"[{event.number}/{event.total}] {event.node.title}{ending}", file=self._stream, flush=True)


def summary(report: Report) -> str:
    """The time of each node, what nodes showed as text, then the paths of the images."""
    rows = [(run.title, "cached" if run.cached else f"{run.seconds:.2f} s") for run in report.nodes]
    rows.append(("Total", f"{report.seconds:.2f} s"))
    width = max(len(title) for title, _ in rows)
    lines = ["Time:", *(f"  {title:<{width}}  {seconds:>9}" for title, seconds in rows)]
    for shown in report.texts:
        lines += [f"{shown.title}:", *(f"  {line}" for line in shown.text.splitlines())]
    lines += ["Images:", *(f"  {saved.path}" for saved in report.outputs)]
    return "\n".join(lines)


def complaint(report: Report) -> str:
    """Every error on its own line; the traceback of one that the code did not expect."""
    head = {
        "invalid": "The workflow was not run:",
        "failed": "The run stopped:",
        "interrupted": "The run was interrupted:",
    }
    lines = [head.get(report.status, "Errors:"), *(f"  {problem}" for problem in report.errors)]
    lines += [problem.traceback for problem in report.errors if problem.traceback]
    return "\n".join(lines)
