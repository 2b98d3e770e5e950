"""The UI (canvas) twin of an API workflow: carried in the images, so that dropping one on ComfyUI's canvas
brings the laid-out graph back with the values that made the image."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...unclip_core.parsing import checked
from .prompt import Node
from .values import InputSpec, input_specs

_NOTES = frozenset({"Note", "MarkdownNote"})


@dataclass(frozen=True)
class DrawnSocket:
    """An input's socket on a drawn node."""

    name: str


@dataclass(frozen=True)
class DrawnNode:
    """A node as the canvas draws it; `widgets_values` are in the order of its widgets."""

    id: int | str
    type: str
    widgets_values: list[Any] | dict[str, Any] | None = None
    inputs: list[DrawnSocket] | None = None


@dataclass(frozen=True)
class Canvas:
    """A UI workflow, as far as it is read here. A link: its id, source and output, target and input, and type."""

    nodes: list[DrawnNode]
    links: list[tuple[Any, int | str, int, int | str, int, Any]] = field(default_factory=list)


def with_values(canvas: Mapping[str, Any], nodes: Mapping[str, Node], classes: Mapping[str, type]) -> dict[str, Any]:
    """Copy a UI workflow and put the values of these nodes into its widgets.

    Args:
        canvas: the UI workflow; it stays as it is.
        nodes: the nodes of the API workflow by id, all of them.
        classes: node classes by id.

    Raises:
        ValueError: it is not laid out as ComfyUI writes it, or is another graph than the nodes': other ids, classes or
            links.
    """
    drawn = _same_graph(checked(Canvas, canvas, "the canvas workflow"), nodes)
    result = copy.deepcopy(dict(canvas))
    for raw in result["nodes"]:
        if (key := str(raw["id"])) in drawn:
            _fill(raw.get("widgets_values"), nodes[key], input_specs(classes[nodes[key].class_type]))
    return result


def _same_graph(canvas: Canvas, nodes: Mapping[str, Node]) -> dict[str, DrawnNode]:
    """The drawn nodes by id, without notes; ValueError where they are not `nodes`, linked in the same way."""
    drawn = {str(node.id): node for node in canvas.nodes if node.type not in _NOTES}
    if {key: node.type for key, node in drawn.items()} != {node.id: node.class_type for node in nodes.values()}:
        raise ValueError("the canvas workflow holds other nodes")
    wanted = {(node.id, name, *link) for node in nodes.values() for name, link in node.links().items()}
    if _links(canvas, drawn) != wanted:
        raise ValueError("the canvas workflow is linked in another way")
    return drawn


def _links(canvas: Canvas, drawn: Mapping[str, DrawnNode]) -> set[tuple[str, str, str, int]]:
    """(node, input name, source node, output slot) of every link."""
    found = set()
    for _, source, output, target, slot, _ in canvas.links:
        if (node := drawn.get(str(target))) is None:
            continue
        sockets = node.inputs or []
        if not 0 <= slot < len(sockets):
            raise ValueError(f"node {node.id} of the canvas workflow has no input {slot}, which is linked")
        found.add((str(target), sockets[slot].name, str(source), output))
    return found


def _fill(values: Any, node: Node, specs: Mapping[str, InputSpec]) -> None:
    """Put a node's values into its drawn widgets' `values`."""
    for name, index in widget_slots(specs).items():
        if name not in node.inputs or isinstance(node.inputs[name], list):
            continue
        if not isinstance(values, list) or index >= len(values):
            raise ValueError(f"node {node.id} of the canvas workflow has no widget for {name!r}")
        values[index] = node.inputs[name]


def widget_slots(specs: Mapping[str, InputSpec]) -> dict[str, int]:
    """Return where each widget's value stands in `widgets_values`: a seed is followed by its control's slot."""
    slots, index = {}, 0
    for spec in specs.values():
        if spec.is_widget:
            slots[spec.name] = index
            index += 2 if has_control(spec) else 1
    return slots


def has_control(spec: InputSpec) -> bool:
    """Tell whether the canvas adds a "control after generate" widget behind this input."""
    named = spec.type == "INT" and spec.name in ("seed", "noise_seed")
    return bool(spec.options.get("control_after_generate", named))
