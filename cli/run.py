"""`unclip run`: a workflow file in, images and a report out, in this process."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..unclip_core.output import say
from ..unclip_core.weights.choices import AUTO
from .exits import run_and_report
from .headless.problems import InvalidWorkflow
from .headless.report import Report
from .headless.terminal import complaint, summary, tell_progress
from .headless.workflow_file import canvas_twin, read_overrides, read_workflow
from .parser import Commands, add_device


def add_run(commands: Commands) -> None:
    """`unclip run`: a workflow in this process."""
    run = commands.add_parser(
        "run",
        help="run an API-format workflow",
        description="Run an API-format workflow and save its images. "
        "Exit code: 0 if every output was written, 1 after an error, 2 if the workflow is invalid.",
    )
    run.add_argument("workflow", metavar="WORKFLOW.json", help="in ComfyUI: File > Export (API)")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        dest="settings",
        help="set an input; NODE is a node's id or title (may be given several times)",
    )
    run.add_argument("--output", default="output", metavar="DIR", help="for images (default: %(default)s)")
    run.add_argument("--json", action="store_true", help="print the report as JSON")
    add_device(run)
    run.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> int:
    return run_and_report(
        lambda: run_file(options.workflow, options.settings, options.output, options.json, options.device)
    )


def run_file(
    path: str | Path,
    settings: Sequence[str] = (),
    output: str | Path = "output",
    as_json: bool = False,
    device: str = AUTO,
) -> int:
    """Run a workflow file, print what came of it, and return the exit code.

    Progress and errors go to stderr; stdout gets the times and the paths of the images.

    Args:
        path: the workflow in the API format.
        settings: `NODE.INPUT=VALUE` each, set over the workflow's own inputs.
        output: the folder for images.
        as_json: print the whole report as one JSON object in place of times and paths.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
    """
    from .headless.run import run_workflow

    path = Path(path)
    try:
        workflow = read_workflow(path)
        overrides = read_overrides(settings)
    except InvalidWorkflow as error:
        report = Report(status="invalid", errors=error.problems)
    else:
        canvas, note = canvas_twin(path)
        report = run_workflow(
            workflow,
            overrides,
            output,
            tell_progress,
            input_dirs=(".", path.parent),
            canvas=canvas,
            device=device,
        )
        report.notes[:0] = [note] if note else []
    for note in report.notes:
        say(note, to_stderr=True)
    if report.errors:
        say(complaint(report), to_stderr=True)
    if as_json:
        say(json.dumps({"workflow": str(path), **report.as_dict()}, indent=2))
    elif report.status == "ok":
        say(summary(report))
    return report.exit_code
