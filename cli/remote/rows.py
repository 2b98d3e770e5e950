"""What is queued: a workflow, and for each row the values that are set over its own."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ...unclip_core.parsing import parse_json
from ..headless.problems import no_such_input
from ..headless.prompt import Node, as_api, override, parse
from ..headless.values import InputSpec, convert, input_specs, whole

NAME = "name"
"""The column of a table that names a row's files, and sets no input."""

SEEDS = ("seed", "noise_seed")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_DIGITS_MAX = 30
_VALUES_MAX = 1_000_000
_LETTERS_SHOWN = 80

ROWS_MAX = 1_000_000
"""Rows that are queued at once."""


@dataclass(frozen=True)
class Row:
    """One prompt of a batch: its number, from 1, the inputs that it sets ("NODE.INPUT" → value), and its name."""

    number: int
    values: Mapping[str, Any]
    name: str = ""

    def __str__(self) -> str:
        """The row in a sentence: its number and what it sets."""
        said = ", ".join(f"{target}={value!r}" for target, value in self.values.items())
        return f"row {self.number} ({said})" if said else f"row {self.number}"


class Batch:
    """A workflow and its rows.

    Raises:
        InvalidWorkflow: the workflow is none.
        ValueError: an input that is to be set is not there, or a value does not fit it; the message says which.
    """

    def __init__(
        self,
        workflow: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        table: Sequence[Mapping[str, Any]] = (),
        varied: Mapping[str, Sequence[Any]] | None = None,
        count: int = 1,
    ) -> None:
        """Lay out the rows: each of the `table`, times every combination of what is `varied`, times `count`.

        Args:
            workflow: in the API format.
            settings: "NODE.INPUT" → value, for all rows.
            table: for each row its own; the column `name` names its files, an empty cell sets nothing.
            varied: "NODE.INPUT" → the values that it takes one after the other.
            count: how often each is queued; every seed that neither table nor `varied` sets counts up from its own.
        """
        if count < 1:
            raise ValueError(f"'count' is {count}; it must be at least 1.")
        rows = (len(table) or 1) * math.prod(len(values) for values in (varied or {}).values()) * count
        if rows > ROWS_MAX:
            raise ValueError(f"That makes {rows:,} rows; at most {ROWS_MAX:,} are queued at once.")
        self._nodes = self._set(parse(workflow)[0], settings or {})
        self.rows = list(self._lay_out(table or [{}], varied or {}, count))
        for row in self.rows:
            self.prompt(row)  # what does not fit is said before anything is queued

    @property
    def digest(self) -> str:
        """A hash of the workflow and all rows: the same for the same batch."""
        rows = [[row.number, dict(row.values), row.name] for row in self.rows]
        text = json.dumps([as_api(self._nodes), rows], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def prompt(self, row: Row) -> dict[str, Any]:
        """The row's workflow in the API format."""
        return as_api(self._set(self._nodes, row.values))

    def _lay_out(
        self, table: Iterable[Mapping[str, Any]], varied: Mapping[str, Sequence[Any]], count: int
    ) -> Iterator[Row]:
        numbers = itertools.count(1)
        for entry in table:
            own = {target: value for target, value in entry.items() if target != NAME and value != ""}
            for combination in itertools.product(*varied.values()):
                values = own | dict(zip(varied, combination, strict=True))
                for turn in range(count):
                    counted = self._seeds(values, turn) if count > 1 else {}
                    yield Row(next(numbers), values | counted, entry.get(NAME, ""))

    def _seeds(self, values: Mapping[str, Any], turn: int) -> dict[str, int]:
        from ...nodes.defaults import SEED_MAX

        nodes = self._set(self._nodes, values)
        taken = {self._place(target) for target in values}
        seeds = {
            f"{node.id}.{name}": (value + turn) % (SEED_MAX + 1)
            for node in nodes.values()
            for name, value in node.inputs.items()
            if name in SEEDS and _is_whole(value) and (node.id, name) not in taken
        }
        if not seeds:
            raise ValueError(
                "There is no seed to count: every row would be the same prompt. Leave --count out, or leave a seed "
                "that neither --table nor --vary sets."
            )
        return seeds

    def _place(self, target: str) -> tuple[str, str]:
        """(node id, input) of "NODE.INPUT"."""
        name, _, field = target.rpartition(".")
        same = [node.id for node in self._nodes.values() if node.title == name]
        return (name if name in self._nodes or not same else same[0]), field

    def _set(self, nodes: Mapping[str, Node], values: Mapping[str, Any]) -> dict[str, Node]:
        result, problems = override(nodes, values, {})
        if problems:
            raise ValueError("\n".join(str(problem) for problem in problems))
        for target in values:
            key, field = _find(result, target)
            before = nodes[key].inputs.get(field)
            fitted = _fitted(nodes[key], field, before, result[key].inputs[field], target)
            result[key] = replace(result[key], inputs={**result[key].inputs, field: fitted})
        return result


def _find(nodes: Mapping[str, Node], target: str) -> tuple[str, str]:
    name, _, field = target.rpartition(".")
    key = name if name in nodes else next(node.id for node in nodes.values() if node.title == name)
    return key, field


def _fitted(node: Node, field: str, before: Any, value: Any, target: str) -> Any:
    """`value` in the type of the input: that of the class where it is known, else that of the value before."""
    spec = _specs(node.class_type).get(field)
    if spec is None and field not in node.inputs:
        raise ValueError(f"Cannot set {target}: {node.class_type} has {no_such_input(field, node.inputs)}")
    try:
        if spec is not None and spec.is_widget:
            return convert(value, spec)
        return _like(before, value)
    except ValueError as error:
        raise ValueError(f"Cannot set {target}: {error}") from error


@cache
def _specs(class_type: str) -> dict[str, InputSpec]:
    """The inputs of a class that this package knows; none of one that only the servers know."""
    from ..headless.run import node_classes

    node_class = node_classes().get(class_type)
    return input_specs(node_class) if node_class else {}


def _like(before: Any, value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and _is_whole(before):
        return int(value)  # a column of whole numbers with gaps is one of floats in pandas and Parquet
    if not isinstance(value, str) or isinstance(before, str) or before is None:
        return value
    if _is_whole(before):
        if (number := whole(value)) is None:
            raise ValueError(f"it takes a whole number, not {_short(value)}.")
        return number
    try:
        return parse_json(value, "it")
    except ValueError:
        raise ValueError(f"it takes JSON, not {_short(value)}.") from None


def _short(text: str) -> str:
    """What was typed, in quotes, for a message."""
    return repr(text if len(text) <= _LETTERS_SHOWN else text[:_LETTERS_SHOWN] + "…")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def read_varied(text: str) -> tuple[str, list[Any]]:
    """`NODE.INPUT=…` with a range `1..8`, a JSON list, or values with commas between them → (target, values).

    A value that itself holds a comma stands in double quotes.

    Raises:
        ValueError: it cannot be read so; the message repeats it.
    """
    target, separator, said = text.partition("=")
    if not separator or "." not in target:
        raise ValueError(f"--vary {_short(text)}: write NODE.INPUT=VALUES, NODE being a node's id or title.")
    if found := _RANGE.fullmatch(said.strip()):
        values: list[Any] = _range(found[1], found[2], text)
    elif said.lstrip().startswith("["):
        values = _json_list(said, text)
    else:
        values = _cells(said, text)
    if not values:
        raise ValueError(f"--vary {_short(text)} gives no values.")
    return target, values


def _range(start: str, end: str, text: str) -> list[int]:
    first, last = (int(number) if len(number) <= _DIGITS_MAX else None for number in (start, end))
    if first is None or last is None or abs(last - first) >= _VALUES_MAX:
        raise ValueError(f"--vary {_short(text)} gives more than {_VALUES_MAX:,} values.")
    return list(range(first, last + 1)) if first <= last else list(range(first, last - 1, -1))


def _cells(said: str, text: str) -> list[Any]:
    try:
        return next(csv.reader([said], skipinitialspace=True), [])
    except csv.Error as error:
        raise ValueError(f"--vary {_short(text)} cannot be read: {error}.") from error


def _json_list(said: str, text: str) -> list[Any]:
    values = parse_json(said, f"--vary {_short(text)}")
    if not isinstance(values, list):
        raise ValueError(f"--vary {_short(text)} is no JSON list.")
    return values
