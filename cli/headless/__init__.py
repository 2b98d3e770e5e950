"""Run an API-format workflow in this process, without a ComfyUI server.

`run_workflow` is the function; the `unclip run` command is `cli/run.py`. One subject a file: `workflow_file` (from the
disk), `prompt` (the JSON and its overrides), `values` (one widget value), `validate` (the whole graph), `run`
(execution and report), `stock` (stand-ins for ComfyUI's own nodes), `canvas` (the UI workflow that
travels in the images), `terminal` (a report as text).
"""

from .problems import InvalidWorkflow, Problem
from .run import Event, NodeRun, Report, SavedImage, run_workflow

__all__ = [
    "Event",
    "InvalidWorkflow",
    "NodeRun",
    "Problem",
    "Report",
    "SavedImage",
    "run_workflow",
]
