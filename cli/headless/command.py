"""`unclip run`: a workflow file in, images and a report out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .problems import InvalidWorkflow, Problem
from .prompt import UI_FORMAT, split_override
from .run import Report, run_workflow
from .terminal import Terminal, complaint, summary


def run_file(
    path: str | Path, settings: Sequence[str] = (), output: str | Path = "output", as_json: bool = False
) -> int:
    """Run a workflow file and say what came of it; returns the exit code.

    settings: `NODE.INPUT=VALUE` each. Progress and errors go to stderr; stdout gets the times and the paths
    of the images, or with as_json the whole report as one JSON object.
    """
    path, terminal = Path(path), Terminal()
    try:
        workflow = read_workflow(path)
        overrides = _overrides(settings)
    except InvalidWorkflow as error:
        report = Report(status="invalid", errors=error.problems)
    else:
        report = run_workflow(
            workflow, overrides, output, terminal, input_dirs=(".", path.parent), canvas=_canvas_twin(path)
        )
    for note in report.notes:
        print(note, file=sys.stderr)
    if report.errors:
        print(complaint(report), file=sys.stderr)
    if as_json:
        print(json.dumps({"workflow": str(path), **report.as_dict()}, indent=2))
    elif report.status == "ok":
        print(summary(report))
    return report.exit_code


def read_workflow(path: Path) -> Any:
    """A workflow file's JSON. Raises InvalidWorkflow where there is none, or it is a canvas workflow."""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid("unreadable", f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _invalid("not_json", f"{path} is no JSON file: it is not text.") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _invalid("not_json", f"{path} is no JSON file: {error.msg} at {place}.") from error
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        twin = path.parent / "api" / path.name
        hint = f" This one is there in the API format already: {twin}" if twin.is_file() else ""
        raise _invalid("ui_format", f"{path}: {UI_FORMAT}{hint}")
    return workflow


def _invalid(kind: str, message: str) -> InvalidWorkflow:
    return InvalidWorkflow([Problem(kind, message)])


def _overrides(settings: Sequence[str]) -> dict[str, str]:
    pairs, problems = {}, []
    for setting in settings:
        try:
            target, value = split_override(setting)
        except ValueError as error:
            problems.append(Problem("bad_setting", str(error)))
        else:
            pairs[target] = value
    if problems:
        raise InvalidWorkflow(problems)
    return pairs


def _canvas_twin(path: Path) -> dict[str, Any] | None:
    """The canvas workflow of an API one: `workflows/x.json` for `workflows/api/x.json`; None without one."""
    twin = path.resolve().parent.parent / path.name
    if path.resolve().parent.name != "api" or not twin.is_file():
        return None
    try:
        workflow = json.loads(twin.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"The images carry the API workflow only: {twin} cannot be read ({error}).", file=sys.stderr)
        return None
    return workflow if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list) else None
