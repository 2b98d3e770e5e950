"""Run an API-format workflow in this process, without a ComfyUI server.

`run_workflow` is the function, `run_file` is what the `unclip run` command calls. One subject a file:
`prompt` (the JSON and its overrides), `values` (one widget value), `validate` (the whole graph),
`run` (execution and report), `stock` (stand-ins for ComfyUI's own nodes), `images` (files),
`canvas` (the UI workflow that travels in the images), `terminal` and `command` (the command line).
"""

from .command import run_file
from .problems import InvalidWorkflow, Problem
from .run import Event, NodeRun, Report, SavedImage, run_workflow

__all__ = [
    "Event",
    "InvalidWorkflow",
    "NodeRun",
    "Problem",
    "Report",
    "SavedImage",
    "run_file",
    "run_workflow",
]
