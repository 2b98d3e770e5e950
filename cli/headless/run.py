"""Execute a workflow node by node and report what came of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...nodes import host
from ...unclip_core.weights import devices
from ...unclip_core.weights.files import DTYPES
from . import canvas as canvas_twin
from .cache import Cache
from .problems import InvalidWorkflow, Problem
from .prompt import Node, as_api, is_link, override, parse
from .report import Event, NodeRun, Report, SavedImage, ShownText
from .stock import FOLDERS, STOCK_NODES, Folders
from .validate import plan


@dataclass(frozen=True)
class _Context:
    """What the nodes of a run share: the classes, and the values of hidden inputs by type."""

    classes: Mapping[str, type]
    hidden: Mapping[str, Any]
    folders: Folders
    on_event: Callable[[Event], None]


def node_classes() -> dict[str, type]:
    """This package's nodes and the stand-ins for stock ones, by id."""
    from ... import NODE_CLASS_MAPPINGS

    return {**STOCK_NODES, **NODE_CLASS_MAPPINGS}


def run_workflow(
    workflow: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    output_dir: str | Path = "output",
    on_event: Callable[[Event], None] | None = None,
    *,
    classes: Mapping[str, type] | None = None,
    input_dirs: tuple[str | Path, ...] = (".",),
    canvas: Mapping[str, Any] | None = None,
    device: str = devices.AUTO,
) -> Report:
    """Validate an API-format workflow as a whole, then run what its outputs need.

    Never raises for what is wrong with the workflow or goes wrong on the way: the report says it, and where. Ctrl-C
    ends the run, and the report says that too.

    Args:
        workflow: the API format, or a `POST /prompt` body.
        overrides: "NODE.INPUT" → value, NODE an id or a title.
        output_dir: made if missing.
        on_event: called with every event of a node. If it raises, the run goes on without it, with a note in the
            report; KeyboardInterrupt ends the run.
        classes: node classes by id (default: this package's and the stock stand-ins).
        input_dirs: where LoadImage looks.
        canvas: the UI workflow of the same graph, put into the images with the values used.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
    """
    report, began = Report(), time.perf_counter()
    folders = Folders(Path(output_dir), tuple(Path(folder) for folder in input_dirs))
    classes = node_classes() if classes is None else classes
    with host.working_in(folders.output, folders.inputs), _errors(report, None), _running_on(device, report):
        nodes, pnginfo = parse(workflow)
        nodes, problems = override(nodes, overrides or {}, classes)
        order = plan(nodes, classes, {FOLDERS: folders}, problems)
        nodes = {**nodes, **{node.id: node for node in order}}  # with converted values
        with_canvas = _with_canvas(pnginfo, canvas, nodes, classes, report)
        hidden = {"PROMPT": as_api(nodes), "EXTRA_PNGINFO": with_canvas, FOLDERS: folders}
        folders.output.mkdir(parents=True, exist_ok=True)
        _execute(order, _Context(classes, hidden, folders, _Listener(on_event, report)), report)
    report.seconds = time.perf_counter() - began
    return report


@contextmanager
def _running_on(name: str, report: Report) -> Iterator[None]:
    """Run nets on the device of that name, and say so in the report.

    Raises:
        InvalidWorkflow: this machine has no such device.
    """
    try:
        chosen = devices.choose_device(name)
    except ValueError as error:
        raise InvalidWorkflow([Problem("no_such_device", str(error))]) from error
    with host.running_on(str(chosen)):
        own = host.weight_dtype("auto", parameters=0)
        report.device = devices.describe_device(chosen)
        report.dtype = next(short for short, dtype in DTYPES.items() if dtype == own)
        if chosen.type != "cpu":
            report.notes.append(f"The nets run on {report.device}, in {report.dtype} where the loader says auto.")
        yield


def _with_canvas(
    pnginfo: Mapping[str, Any] | None,
    canvas: Mapping[str, Any] | None,
    nodes: Mapping[str, Node],
    classes: Mapping[str, type],
    report: Report,
) -> Mapping[str, Any] | None:
    """What goes into the images besides the prompt: the canvas workflow, where it is this graph."""
    if canvas is None:
        return pnginfo
    try:
        return {**(pnginfo or {}), "workflow": canvas_twin.with_values(canvas, nodes, classes)}
    except ValueError as error:
        report.notes.append(f"The images carry the API workflow only: {str(error).rstrip('.')}.")
        return pnginfo


class _Listener:
    """Calls `on_event` for as long as it does not raise: who listens must not cost the run its result."""

    def __init__(self, call: Callable[[Event], None] | None, report: Report) -> None:
        self._call, self._report = call, report

    def __call__(self, event: Event) -> None:
        """Tell one event."""
        if self._call is None:
            return
        try:
            self._call(event)
        except Exception as error:
            self._call = None
            told = f"told of node {event.node.id} ({event.node.title}, {event.kind})"
            self._report.notes.append(
                f"on_event failed when it was {told}, and was not called again: {type(error).__name__}: {error}"
            )


def _execute(order: list[Node], context: _Context, report: Report) -> None:
    """Run the nodes in order until the end, an error or an interrupt; nodes with equal inputs run once."""
    cache = Cache()
    for number, node in enumerate(order, start=1):
        with _errors(report, node):
            _step(node, (number, len(order)), cache, context, report)
        if report.errors:
            return


def _step(node: Node, place: tuple[int, int], cache: Cache, context: _Context, report: Report) -> None:
    """Run one node, or take its result from an equal one before it; `place` is its number, of how many."""
    cached = cache.enter(node, context.classes[node.class_type])
    context.on_event(Event("cached" if cached else "start", node, *place))
    if cached:
        report.nodes.append(NodeRun(node.id, node.title, node.class_type, 0.0, cached=True))
        return
    began = time.perf_counter()
    try:
        cache.store(node, _call(node, cache, context, report))
    finally:
        seconds = time.perf_counter() - began
        report.nodes.append(NodeRun(node.id, node.title, node.class_type, seconds, cached=False))
    context.on_event(Event("done", node, *place, seconds))


@contextmanager
def _errors(report: Report, node: Node | None) -> Iterator[None]:
    """Turn what goes wrong inside into the report's errors, with the node it happened in."""
    place = (node.id, node.title) if node else (None, None)
    try:
        yield
    except InvalidWorkflow as error:
        report.status, report.errors = "invalid", error.problems
    except KeyboardInterrupt:
        report.status = "interrupted"
        report.errors.append(Problem("interrupted", "interrupted.", *place))
    except Exception as error:
        expected = isinstance(error, (ValueError, OSError))
        trace = None if expected else traceback.format_exc()
        message = _sentence(error) if expected else f"{type(error).__name__}: {error}"
        report.status = "failed"
        report.errors.append(replace(Problem("failed", message, *place), traceback=trace))


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _call(node: Node, cache: Cache, context: _Context, report: Report) -> tuple[Any, ...]:
    """Run one node on its sources' results; what it saved goes into the report."""
    node_class: Any = context.classes[node.class_type]
    values = {name: cache.output(*value) if is_link(value) else value for name, value in node.inputs.items()}
    for name, kind in node_class.INPUT_TYPES().get("hidden", {}).items():
        values[name] = node.id if kind == "UNIQUE_ID" else context.hidden.get(kind)
    with torch.inference_mode():
        returned = getattr(node_class(), node_class.FUNCTION)(**values)
    if isinstance(returned, Mapping):
        _take_ui(returned.get("ui", {}), node, context, report)
        returned = returned.get("result", ())
    return tuple(returned or ())


def _take_ui(shown: Mapping[str, Any], node: Node, context: _Context, report: Report) -> None:
    """Put what a node would show on the canvas into the report: saved files, texts and warnings."""
    for entry in (*shown.get("images", ()), *shown.get("files", ())):
        path = context.folders.output / entry["subfolder"] / entry["filename"]
        report.outputs.append(SavedImage(node.id, node.title, path))
    for text in shown.get("text", ()):
        report.texts.append(ShownText(node.id, node.title, text))
    for warning in shown.get("warnings", ()):
        report.warnings.append(Problem("warning", warning, node.id, node.title))
