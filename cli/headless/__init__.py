"""Run an API-format workflow in this process, without a ComfyUI server.

`run_workflow` is the function; the `unclip run` command is `cli/run.py`. One subject a file: `workflow_file` (from the
disk), `prompt` (the JSON and its overrides), `values` (one widget value), `validate` (the whole graph), `run`
and `cache` (execution), `report` (what came of it), `stock` and `load_image` (stand-ins for ComfyUI's own nodes),
`canvas` (the UI workflow that travels in the images), `terminal` (a report as text).
"""

from typing import Any

from .problems import InvalidWorkflow, Problem
from .report import Event, NodeRun, Report, SavedImage

__all__ = [
    "Event",
    "InvalidWorkflow",
    "NodeRun",
    "Problem",
    "Report",
    "SavedImage",
    "run_workflow",
]


def __getattr__(name: str) -> Any:
    """`run_workflow`, once it is asked for: reading a workflow takes neither torch nor the nodes."""
    if name != "run_workflow":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from .run import run_workflow

    return run_workflow
