"""The UI (canvas) twin of an API workflow: carried in the images, so that dropping one on ComfyUI's canvas
brings the laid-out graph back with the values that made the image."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .prompt import Node
from .values import InputSpec, input_specs

_NOTES = frozenset({"Note", "MarkdownNote"})


def with_values(canvas: Mapping[str, Any], nodes: Mapping[str, Node], classes: Mapping[str, type]) -> dict[str, Any]:
    """A copy of a UI workflow with these nodes' values in its widgets.

    Raises ValueError where it is another graph than the nodes': other ids, classes or links.
    """
    try:
        return _with_values(copy.deepcopy(dict(canvas)), nodes, classes)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("the canvas workflow is not laid out as ComfyUI writes it") from error


def _with_values(result: dict[str, Any], nodes: Mapping[str, Node], classes: Mapping[str, type]) -> dict[str, Any]:
    drawn = {str(node["id"]): node for node in result["nodes"] if node["type"] not in _NOTES}
    if {key: node["type"] for key, node in drawn.items()} != {n.id: n.class_type for n in nodes.values()}:
        raise ValueError("the canvas workflow holds other nodes")
    wanted = {(node.id, name, *link) for node in nodes.values() for name, link in node.links().items()}
    if _links(result, drawn) != wanted:
        raise ValueError("the canvas workflow is linked in another way")
    for key, node in drawn.items():
        _fill(node.get("widgets_values", []), nodes[key], input_specs(classes[nodes[key].class_type]))
    return result


def _links(canvas: Mapping[str, Any], drawn: Mapping[str, Any]) -> set[tuple[str, str, str, int]]:
    """(node, input name, source node, output slot) of every link."""
    return {
        (str(to), drawn[str(to)]["inputs"][slot]["name"], str(source), output)
        for _, source, output, to, slot, _ in canvas["links"]
        if str(to) in drawn
    }


def _fill(values: list[Any], node: Node, specs: Mapping[str, InputSpec]) -> None:
    for name, index in widget_slots(specs).items():
        if name in node.inputs and not isinstance(node.inputs[name], list):
            values[index] = node.inputs[name]


def widget_slots(specs: Mapping[str, InputSpec]) -> dict[str, int]:
    """Where each widget's value stands in `widgets_values`: a seed is followed by its control's slot."""
    slots, index = {}, 0
    for spec in specs.values():
        if spec.is_widget:
            slots[spec.name] = index
            index += 2 if has_control(spec) else 1
    return slots


def has_control(spec: InputSpec) -> bool:
    """Whether the canvas adds a "control after generate" widget behind this input."""
    named = spec.type == "INT" and spec.name in ("seed", "noise_seed")
    return bool(spec.options.get("control_after_generate", named))
