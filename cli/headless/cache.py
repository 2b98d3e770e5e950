"""Results of nodes by what they were made of, so that equal nodes run once."""

from __future__ import annotations

import json
from typing import Any

from .prompt import Node, is_link


class Cache:
    """Results by the class, the values and the sources' own results.

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
