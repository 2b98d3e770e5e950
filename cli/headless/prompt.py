"""The API format: `{id: {"class_type", "inputs", "_meta": {"title"}}}`, and the values set over it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...unclip_core.parsing import MalformedInput, checked, parse_json
from .problems import InvalidWorkflow, Problem, cut, no_such_input
from .values import InputSpec, check_plain, input_specs

UI_FORMAT = (
    "This is a workflow in the canvas format; the runner takes the API format. Open it in ComfyUI and choose "
    "File > Export (API), then run the exported file."
)


_KEYWORD = re.compile(r"[\x20-\x7e\xa1-\xff]{1,79}")  # what may name a text in a PNG
_NODES_NAMED = 50  # in one error


@dataclass(frozen=True)
class ExtraData:
    """`extra_data` of a `POST /prompt` body, as far as it is used here.

    Attributes:
        extra_pnginfo: texts by name that go into the images besides the prompt.
    """

    extra_pnginfo: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a name that a PNG cannot hold."""
        for name in self.extra_pnginfo or ():
            if not _KEYWORD.fullmatch(name):
                raise ValueError(
                    f"extra_pnginfo: {cut(name)!r} cannot name a text in a PNG (1 to 79 Latin-1 characters)"
                )


@dataclass(frozen=True)
class Node:
    """One node of a prompt.

    Attributes:
        id: its key in the workflow.
        class_type: the id of its class.
        title: what the canvas calls it; the class where it has none.
        inputs: a value each, or a link `[source id, output slot]`.
    """

    id: str
    class_type: str
    title: str
    inputs: dict[str, Any]

    def links(self) -> dict[str, tuple[str, int]]:
        """Return the inputs that are links: name → (source id, output slot). Malformed lists are left out."""
        return {name: (str(value[0]), value[1]) for name, value in self.inputs.items() if is_link(value)}


def is_link(value: Any) -> bool:
    """Tell whether an input's value is a well-formed link: a list of a node id and a slot number."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    source, slot = value
    return isinstance(source, (str, int)) and isinstance(slot, int) and not isinstance(slot, bool)


def parse(workflow: Any) -> tuple[dict[str, Node], dict[str, Any] | None]:
    """Read an API-format workflow, or a whole `POST /prompt` body that holds one under "prompt".

    Returns:
        The nodes by id, and the body's `extra_pnginfo` (None without one).

    Raises:
        InvalidWorkflow: it is in the canvas (UI) format, no object, or without nodes; nodes lack a class, or have
            values that JSON cannot hold; or `extra_data` is of another form. All that is wrong is named.
    """
    if not isinstance(workflow, Mapping):
        message = "A workflow is a JSON object of nodes by their ids."
        raise InvalidWorkflow([Problem("not_a_workflow", message)])
    if isinstance(workflow.get("nodes"), list):
        raise InvalidWorkflow([Problem("ui_format", UI_FORMAT)])
    pnginfo = None
    if isinstance(workflow.get("prompt"), Mapping) and "class_type" not in workflow["prompt"]:
        pnginfo = _pnginfo(workflow.get("extra_data"))
        workflow = workflow["prompt"]
    if not workflow:
        raise InvalidWorkflow([Problem("empty", "The workflow holds no nodes.")])
    problems = [problem for key, raw in workflow.items() for problem in _shape_problems(str(key), raw)]
    if problems:
        raise InvalidWorkflow(problems)
    nodes = {str(key): _node(str(key), raw) for key, raw in workflow.items()}
    if problems := [problem for node in nodes.values() for problem in _value_problems(node)]:
        raise InvalidWorkflow(problems)
    return nodes, pnginfo


def _pnginfo(extra_data: Any) -> dict[str, Any] | None:
    try:
        return checked(ExtraData, extra_data or {}, "extra_data").extra_pnginfo
    except MalformedInput as error:
        raise InvalidWorkflow([Problem("bad_extra_data", str(error))]) from error


def _shape_problems(key: str, raw: Any) -> list[Problem]:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("class_type"), str):
        return [Problem("no_class", 'is no node: a node is an object with a "class_type".', key, "?")]
    if not isinstance(raw.get("inputs", {}), Mapping):
        message = '"inputs" has to be an object of values by name.'
        return [Problem("bad_inputs", message, key, raw["class_type"])]
    return []


def _node(key: str, raw: Mapping[str, Any]) -> Node:
    meta = raw.get("_meta")
    title = meta.get("title") if isinstance(meta, Mapping) else None
    inputs = {str(name): value for name, value in raw.get("inputs", {}).items()}
    return Node(key, raw["class_type"], title if isinstance(title, str) and title else raw["class_type"], inputs)


def _value_problems(node: Node) -> Iterable[Problem]:
    """What no node can take, whatever its class."""
    for name, value in node.inputs.items():
        try:
            check_plain(value)
        except MalformedInput as error:
            yield Problem("bad_value", str(error), node.id, node.title, name)


def as_api(nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Write nodes in the API format: what ComfyUI puts under "prompt" into an image."""
    return {
        node.id: {"inputs": node.inputs, "class_type": node.class_type, "_meta": {"title": node.title}}
        for node in nodes.values()
    }


def split_override(text: str) -> tuple[str, str]:
    """Split `NODE.INPUT=VALUE` at the first `=` into ("NODE.INPUT", "VALUE").

    Raises:
        ValueError: there is no `=`, or no `.` before it.
    """
    target, separator, value = text.partition("=")
    if not separator or "." not in target:
        raise ValueError(f"--set {text!r}: write NODE.INPUT=VALUE, NODE being a node's id or title.")
    return target, value


def override(
    nodes: Mapping[str, Node], overrides: Mapping[str, Any], classes: Mapping[str, type]
) -> tuple[dict[str, Node], list[Problem]]:
    """Set inputs over a workflow's own.

    Args:
        overrides: "NODE.INPUT" → value, NODE being an id or a title. Text is converted later to the input's type;
            for an input that takes a link it is read as JSON, `["3", 0]`.

    Returns:
        New nodes, and the overrides that name no node, several nodes or no input.
    """
    result, problems = dict(nodes), []
    for target, value in overrides.items():
        target = str(target)
        name, _, field = target.rpartition(".")
        found = [name] if name in nodes else [node.id for node in nodes.values() if node.title == name]
        if len(found) != 1:
            problems.append(_not_one_node(target, name, found, nodes))
            continue
        node = result[found[0]]
        specs = input_specs(classes[node.class_type]) if node.class_type in classes else {}
        value = _as_link(value) if field in specs and not specs[field].is_widget else value
        try:
            check_plain(value)
        except MalformedInput as error:
            problems.append(Problem("bad_value", str(error), node.id, node.title, field))
            continue
        if specs and field not in specs:
            message = f"set, but this node has {no_such_input(field, specs)}"
            problems.append(Problem("unknown_input", message, node.id, node.title, field))
            continue
        result[node.id] = replace(node, inputs={**node.inputs, field: value})
    return result, problems


def _not_one_node(target: str, name: str, found: list[str], nodes: Mapping[str, Node]) -> Problem:
    if found:
        message = f"Cannot set {target}: nodes {cut(', '.join(found))} all have the title {name!r}; use an id."
        return Problem("ambiguous_node", message)
    known = ", ".join(f"{node.id} ({cut(node.title)})" for node in list(nodes.values())[:_NODES_NAMED])
    known += f" and {len(nodes) - _NODES_NAMED} more" if len(nodes) > _NODES_NAMED else ""
    message = f"Cannot set {target}: no node has the id or title {name!r}. Nodes: {known}."
    return Problem("unknown_node", message)


def _as_link(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value, "a link")
    except MalformedInput:
        return value  # left as it is: validation then says that this input takes a link


def node_input(spec: InputSpec, node: Node) -> Any:
    """Return the value that a node gives for an input, with ComfyUI's `{"__value__": …}` wrapping taken off."""
    value = node.inputs[spec.name]
    return value["__value__"] if isinstance(value, Mapping) and "__value__" in value else value
