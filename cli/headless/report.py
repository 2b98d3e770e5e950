"""What came of a run: the files, texts and times of its nodes, and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .problems import Problem
from .prompt import Node

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

    Attributes:
        status: "invalid" before anything ran, "failed" or "interrupted" on the way, or "ok".
        outputs: the files that were written, in their order.
        nodes: the nodes that ran, in their order; the one that failed is the last.
        errors: what is wrong with the workflow, or what stopped the run.
        texts: what nodes show besides images.
        warnings: what nodes have to say about a result that they gave.
        notes: what the run itself has to say.
        seconds: wall time of the whole run.
        device: what the nets ran on.
        dtype: what a loader's "auto" stood for.
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
