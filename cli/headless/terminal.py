"""A run as lines of text for a person: progress as it goes on, the summary and the complaint afterwards."""

from __future__ import annotations

from ...unclip_core.output import say
from .report import Event, Report


def tell_progress(event: Event) -> None:
    """Print a line on stderr as a node starts; the nodes show the progress of their steps themselves."""
    if event.kind != "done":
        ending = "  (as before)" if event.kind == "cached" else ""
        say(f"[{event.number}/{event.total}] {event.node.title}{ending}", to_stderr=True)


def summary(report: Report) -> str:
    """List the time of each node, what nodes showed as text, then the paths of the images."""
    rows = [(run.title, "cached" if run.cached else f"{run.seconds:.2f} s") for run in report.nodes]
    rows.append(("Total", f"{report.seconds:.2f} s"))
    width = max(len(title) for title, _ in rows)
    lines = ["Time:", *(f"  {title:<{width}}  {seconds:>9}" for title, seconds in rows)]
    for shown in report.texts:
        lines += [f"{shown.title}:", *(f"  {line}" for line in shown.text.splitlines())]
    lines += ["Images:", *(f"  {saved.path}" for saved in report.outputs)]
    return "\n".join(lines)


def complaint(report: Report) -> str:
    """List every error on its own line, and the traceback of one that the code did not expect."""
    head = {
        "invalid": "The workflow was not run:",
        "failed": "The run stopped:",
        "interrupted": "The run was interrupted:",
    }
    lines = [head.get(report.status, "Errors:"), *(f"  {problem}" for problem in report.errors)]
    lines += [problem.traceback for problem in report.errors if problem.traceback]
    return "\n".join(lines)
