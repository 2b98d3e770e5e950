"""Check a whole workflow before anything runs, and put its nodes in an order in which they can run.

As in ComfyUI, the inputs of nodes that no output needs are not looked at; unlike ComfyUI, an input that a
node does not have is an error here, because a misspelt optional input would otherwise be dropped in silence.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from .problems import InvalidWorkflow, Problem, cut, nearest, no_such_input
from .prompt import Node, is_link, node_input
from .values import InputSpec, check_range, convert, input_specs

# Old exports carry the upload button of LoadImage as if it were an input.
_NOT_INPUTS = {"LoadImage": {"upload"}}


_CYCLES_NAMED = 20  # each costs a walk over the whole graph


def plan(
    nodes: Mapping[str, Node],
    classes: Mapping[str, type],
    hidden: Mapping[str, Any],
    earlier: list[Problem] | None = None,
) -> list[Node]:
    """Check a workflow and return the nodes that its outputs need, sorted, their values in the inputs' types.

    Args:
        nodes: all nodes by id.
        classes: node classes by id.
        hidden: what hidden inputs of a type ("PROMPT", …) get, for `VALIDATE_INPUTS`.
        earlier: problems found before.

    Returns:
        The nodes in topological order: each behind those that it is linked to.

    Raises:
        InvalidWorkflow: with all problems, those of `earlier` first.
    """
    problems = list(earlier or ()) + [
        _unknown_class(node, classes) for node in nodes.values() if node.class_type not in classes
    ]
    outputs = [node.id for node in nodes.values() if _is_output(classes.get(node.class_type))]
    if not outputs:
        message = "Nothing would be written: there is no output node, such as SaveImage."
        problems.append(Problem("no_output", message))
    needed = _ancestors(outputs, nodes)
    ready: dict[str, Node] = {}
    for node in needed:
        if node.class_type in classes:
            ready[node.id], found = _checked(node, nodes, classes, hidden)
            problems += found
    order, cycles = _sorted(needed)
    problems += cycles
    if problems:
        raise InvalidWorkflow(problems)
    return [ready[key] for key in order]


def _is_output(node_class: type | None) -> bool:
    return bool(getattr(node_class, "OUTPUT_NODE", False))


def _unknown_class(node: Node, classes: Mapping[str, type]) -> Problem:
    near = nearest(node.class_type, classes)
    hint = f"Did you mean {near}?" if near else f"Known: {', '.join(sorted(classes))}."
    message = f"there is no node class {cut(node.class_type)} in the headless runner. {hint}"
    return Problem("unknown_class", message, node.id, node.title)


def _ancestors(outputs: list[str], nodes: Mapping[str, Node]) -> list[Node]:
    """The nodes that these outputs need, themselves included, in the workflow's order."""
    found, waiting = set(), list(outputs)
    while waiting:
        key = waiting.pop()
        if key in nodes and key not in found:
            found.add(key)
            waiting += [source for source, _ in nodes[key].links().values()]
    return [node for node in nodes.values() if node.id in found]


def _sorted(needed: list[Node]) -> tuple[list[str], list[Problem]]:
    """Ids in topological order, and the first `_CYCLES_NAMED` cycles in the way (each is broken at one link)."""
    present = {node.id: node for node in needed}
    sources = {node.id: {source for source, _ in node.links().values() if source in present} for node in needed}
    problems: list[Problem] = []
    while len(problems) < _CYCLES_NAMED:
        try:
            return list(TopologicalSorter(sources).static_order()), problems
        except CycleError as error:
            cycle = error.args[1]
            path = " → ".join(f"{key} ({present[key].title})" for key in cycle)
            node = present[cycle[0]]
            problems.append(Problem("cycle", f"depends on itself: {path}.", node.id, node.title))
            sources[cycle[1]].discard(cycle[0])
    return [], problems


_LISTS = "which only ComfyUI itself can pass from node to node."


def _checked(
    node: Node, nodes: Mapping[str, Node], classes: Mapping[str, type], hidden: Mapping[str, Any]
) -> tuple[Node, list[Problem]]:
    """One node with converted values, and what is wrong with it."""
    node_class = classes[node.class_type]
    specs = input_specs(node_class)
    named = _validated_by_class(node_class)
    extra = _NOT_INPUTS.get(node.class_type, set())
    problems = [
        Problem("unknown_input", no_such_input(name, specs), node.id, node.title, name)
        for name in node.inputs
        if name not in specs and name not in extra
    ]
    values: dict[str, Any] = {}
    for spec in specs.values():
        try:
            if spec.name in node.inputs:
                values[spec.name] = _value(spec, node, nodes, classes, spec.name in named)
            elif spec.required:
                raise _Invalid("missing_input", f"needs {_needs(spec)}, and has none.")
        except _Invalid as error:
            problems.append(Problem(error.kind, str(error), node.id, node.title, spec.name))
    node = replace(node, inputs=values)
    if getattr(node_class, "INPUT_IS_LIST", False):
        problems.append(Problem("list_node", f"takes lists, {_LISTS}", node.id, node.title))
    return node, problems or _own_check(node, node_class, named, hidden)


class _Invalid(ValueError):
    """A value that will not do, with the kind of problem it is."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


def _needs(spec: InputSpec) -> str:
    return "a value" if spec.is_widget else f"a link from a node that gives {spec.type}"


def _value(
    spec: InputSpec, node: Node, nodes: Mapping[str, Node], classes: Mapping[str, type], class_checks: bool
) -> Any:
    """The converted value, or the link, that a node gives for one input."""
    raw = node.inputs[spec.name]
    if isinstance(raw, list):
        return _link(raw, spec, nodes, classes)
    try:
        value = convert(node_input(spec, node), spec)
    except ValueError as error:
        raise _Invalid("wrong_type", str(error)) from None
    if not class_checks:
        try:
            check_range(value, spec)
        except ValueError as error:
            raise _Invalid("out_of_range", str(error)) from None
    return value


def _link(raw: list[Any], spec: InputSpec, nodes: Mapping[str, Node], classes: Mapping[str, Any]) -> list[Any]:
    if not is_link(raw):
        raise _Invalid("bad_link", f"{cut(repr(raw))} is no link; a link is [node id, output slot].")
    source, slot = nodes.get(str(raw[0])), raw[1]
    if source is None:
        raise _Invalid("bad_link", f"is linked to node {cut(str(raw[0]))}, which the workflow does not hold.")
    if source.class_type not in classes:
        return raw  # said already, of that node
    types, name = classes[source.class_type].RETURN_TYPES, f"node {source.id} ({source.title})"
    if not 0 <= slot < len(types):
        raise _Invalid("bad_link", f"is linked to output {cut(str(slot))} of {name}, which has {len(types)} of them.")
    if not spec.accepts(types[slot]):
        raise _Invalid("wrong_type", f"takes {spec.type}, but {name} gives {types[slot]}.")
    if [*getattr(classes[source.class_type], "OUTPUT_IS_LIST", ()), *([False] * len(types))][slot]:
        raise _Invalid("list_node", f"takes what {name} gives as a list, {_LISTS}")
    return [source.id, slot]


def _validated_by_class(node_class: Any) -> set[str]:
    """The inputs that the class's own VALIDATE_INPUTS answers for (its range checks replace the runner's)."""
    check = getattr(node_class, "VALIDATE_INPUTS", None)
    if check is None:
        return set()
    signature = inspect.getfullargspec(check)
    if signature.varkw:
        return set(input_specs(node_class))
    return {*signature.args, *signature.kwonlyargs} - {"cls", "self"}


def _own_check(node: Node, node_class: Any, named: set[str], hidden: Mapping[str, Any]) -> list[Problem]:
    """What the class's VALIDATE_INPUTS says of the inputs it names (None for links) and the hidden ones.

    If it answers for a single input, the problem is that input's.
    """
    if not named:
        return []
    answered = [name for name in node.inputs if name in named]
    place = (node.id, node.title, answered[0] if len(answered) == 1 else None)
    values = {name: None if is_link(value) else value for name, value in node.inputs.items()}
    values |= {name: hidden.get(kind) for name, kind in node_class.INPUT_TYPES().get("hidden", {}).items()}
    try:
        verdict = node_class.VALIDATE_INPUTS(**{name: values[name] for name in values if name in named})
    except Exception as error:
        message = f"the node cannot check these inputs: {type(error).__name__}: {error}"
        return [Problem("refused", message, *place, traceback=traceback.format_exc())]
    if verdict is True:
        return []
    message = verdict if isinstance(verdict, str) else "the node refuses these inputs."
    return [Problem("refused", message, *place)]
