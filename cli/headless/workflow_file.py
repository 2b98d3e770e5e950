"""A workflow's JSON file, the canvas workflow that lies beside it, and the overrides of a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...unclip_core.parsing import MalformedInput, read_json
from .problems import InvalidWorkflow, Problem
from .prompt import UI_FORMAT, split_override


def read_workflow(path: Path) -> Any:
    """Return a workflow file's JSON.

    Raises:
        InvalidWorkflow: there is no such file, it is no JSON, or it is a canvas workflow.
    """
    try:
        workflow = read_json(path)
    except OSError as error:
        raise _invalid("unreadable", f"{path} cannot be read: {error.strerror or error}.") from error
    except MalformedInput as error:
        raise _invalid("not_json", f"This is no workflow: {error}") from error
    except ValueError as error:  # a name that no file can have
        raise _invalid("unreadable", f"{path} cannot be read: {error}.") from error
    if isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list):
        twin = path.parent / "api" / path.name
        hint = f" This one is there in the API format already: {twin}" if twin.is_file() else ""
        raise _invalid("ui_format", f"{path}: {UI_FORMAT}{hint}")
    return workflow


def _invalid(kind: str, message: str) -> InvalidWorkflow:
    return InvalidWorkflow([Problem(kind, message)])


def read_overrides(settings: Sequence[str]) -> dict[str, str]:
    """Return `NODE.INPUT=VALUE` texts as "NODE.INPUT" → value.

    Raises:
        InvalidWorkflow: some of them are of another form; all of these are named.
    """
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


def canvas_twin(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Find the canvas workflow that goes with an API one: `workflows/x.json` for `workflows/api/x.json`.

    Returns:
        The canvas workflow, None where there is none or it cannot be read; and in that case a note that says why.
    """
    twin = path.resolve().parent.parent / path.name
    if path.resolve().parent.name != "api" or not twin.is_file():
        return None, None
    try:
        workflow = read_json(twin)
    except (OSError, MalformedInput) as error:
        return None, f"The images carry the API workflow only: {twin} cannot be read ({error})."
    is_canvas = isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list)
    return (workflow if is_canvas else None), None
