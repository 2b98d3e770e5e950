"""Execute a workflow node by node and report what came of it."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ...nodes import host
from ...unclip_core.weights import devices
from ...unclip_core.weights.files import DTYPES
from . import canvas as canvas_twin
from .problems import InvalidWorkflow, Problem
from .prompt import Node, as_api, is_link, override, parse
from .stock import FOLDERS, STOCK_NODES, Folders
from .validate import plan

_EXIT_CODES = {"ok": 0, "failed": 1, "invalid": 2, "interrupted": 130}


@dataclass(frozen=True)
class NodeRun:
    """One executed node. seconds: wall time; cached: its result was that of an equal node before it."""

    node: str
    title: str
    class_type: str
    seconds: float
    cached: bool


@dataclass(frozen=True)
class SavedImage:
    """A written file, mostly an image, and the node that wrote it."""

    node: str
    title: str
    path: Path


@dataclass(frozen=True)
class ShownText:
    """What a node would show as text on the canvas."""

    node: str
    title: str
    text: str


@dataclass(frozen=True)
class Event:
    """What `on_event` is told: a node starts, is done, or was found in the cache. number: 1..total."""

    kind: Literal["start", "done", "cached"]
    node: Node
    number: int
    total: int
    seconds: float = 0.0


@dataclass
class Report:
    """What came of a run.

    status: "invalid" before anything ran, "failed" or "interrupted" on the way, or "ok".
    texts: what nodes show besides images. warnings: what they have to say about a result that they gave. notes:
    what the run itself has to say. device: what the nets ran on. dtype: what a loader's "auto" stood for.
    """

    status: Literal["ok", "invalid", "failed", "interrupted"] = "ok"
    outputs: list[SavedImage] = field(default_factory=list)
    nodes: list[NodeRun] = field(default_factory=list)
    errors: list[Problem] = field(default_factory=list)
    texts: list[ShownText] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    device: str = ""
    dtype: str = ""

    @property
    def exit_code(self) -> int:
        """0 if every output was written, 1 after an error, 2 for an invalid workflow, 130 if interrupted."""
        return _EXIT_CODES[self.status]

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "status": self.status,
            "outputs": [{**vars(saved), "path": str(saved.path)} for saved in self.outputs],
            "nodes": [dict(vars(run)) for run in self.nodes],
            "errors": [problem.as_dict() for problem in self.errors],
            "texts": [dict(vars(shown)) for shown in self.texts],
            "warnings": [problem.as_dict() for problem in self.warnings],
            "notes": self.notes,
            "seconds": self.seconds,
            "device": self.device,
            "dtype": self.dtype,
        }


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

    Never raises for what is wrong with the workflow or goes wrong on the way: the report says it.

    Args:
        workflow: the API format, or a `POST /prompt` body.
        overrides: "NODE.INPUT" → value, NODE an id or a title.
        output_dir: made if missing.
        on_event: called with every event of a node.
        classes: node classes by id (default: this package's and the stock stand-ins).
        input_dirs: where LoadImage looks.
        canvas: the UI workflow of the same graph, put into the images with the values used.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
    """
    report, began = Report(), time.perf_counter()
    folders = Folders(Path(output_dir), tuple(Path(folder) for folder in input_dirs))
    classes = node_classes() if classes is None else classes
    with host.working_in(folders.output, folders.inputs), ExitStack() as placed:
        try:
            placed.enter_context(_running_on(device, report))
            nodes, pnginfo = parse(workflow)
            nodes, problems = override(nodes, overrides or {}, classes)
            order = plan(nodes, classes, {FOLDERS: folders}, problems)
        except InvalidWorkflow as error:
            report.status, report.errors = "invalid", error.problems
        else:
            nodes = {**nodes, **{node.id: node for node in order}}  # with converted values
            with_canvas = _with_canvas(pnginfo, canvas, nodes, classes, report)
            hidden = {"PROMPT": as_api(nodes), "EXTRA_PNGINFO": with_canvas, FOLDERS: folders}
            _execute(order, _Context(classes, hidden, folders, on_event or (lambda event: None)), report)
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
        report.notes.append(f"The images carry the API workflow only: {error}.")
        return pnginfo


def _execute(order: list[Node], context: _Context, report: Report) -> None:
    """Run the nodes in order until the end, an error or an interrupt; nodes with equal inputs run once."""
    with _errors(report, None):
        context.folders.output.mkdir(parents=True, exist_ok=True)
    cache = _Cache()
    for number, node in enumerate(order, start=1):
        if report.errors:
            return
        if cache.enter(node, context.classes[node.class_type]):
            report.nodes.append(NodeRun(node.id, node.title, node.class_type, 0.0, cached=True))
            context.on_event(Event("cached", node, number, len(order)))
            continue
        context.on_event(Event("start", node, number, len(order)))
        began = time.perf_counter()
        with _errors(report, node):
            cache.store(node, _call(node, cache, context, report))
        seconds = time.perf_counter() - began
        report.nodes.append(NodeRun(node.id, node.title, node.class_type, seconds, cached=False))
        if not report.errors:
            context.on_event(Event("done", node, number, len(order), seconds))


class _Cache:
    """Results by what they were made of: the class, the values and the sources' own results.

    Nodes with the same class, values and sources share an entry. An output node shares none: each writes.
    """

    def __init__(self) -> None:
        self._entries: dict[str, int] = {}
        self._of_node: dict[str, int] = {}
        self._results: dict[int, tuple[Any, ...]] = {}

    def enter(self, node: Node, node_class: type) -> bool:
        """Give the node its entry; whether that holds a result already."""
        inputs = {
            name: ["link", self._of_node[str(value[0])], value[1]] if is_link(value) else ["value", value]
            for name, value in node.inputs.items()
        }
        alone = node.id if getattr(node_class, "OUTPUT_NODE", False) else None
        text = json.dumps([node.class_type, inputs, alone], sort_keys=True)
        self._of_node[node.id] = self._entries.setdefault(text, len(self._entries))
        return self._of_node[node.id] in self._results

    def store(self, node: Node, result: tuple[Any, ...]) -> None:
        """Keep a node's outputs."""
        self._results[self._of_node[node.id]] = result

    def output(self, node: str, slot: int) -> Any:
        """One output of a node that has run."""
        return self._results[self._of_node[node]][slot]


@contextmanager
def _errors(report: Report, node: Node | None) -> Iterator[None]:
    """Turn what goes wrong inside into the report's error, with the node it happened in."""
    place = (node.id, node.title) if node else (None, None)
    try:
        yield
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


def _call(node: Node, cache: _Cache, context: _Context, report: Report) -> tuple[Any, ...]:
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
