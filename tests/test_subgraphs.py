"""The subgraph blueprints: they are whole, and their nodes are as they stand today."""

import json
from pathlib import Path

import pytest

from unclip import NODE_CLASS_MAPPINGS as CLASSES

FOLDER = Path(__file__).resolve().parent.parent / "subgraphs"
NAMES = {"Text to Image", "Image Variations", "Blend Two Images", "Edit by Two Texts", "Inpaint"}
PATHS = sorted(FOLDER.glob("*.json"))
BOUNDARY_IN, BOUNDARY_OUT = -10, -20

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path):
    """(the one node on the canvas, the subgraph that it stands for)."""
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    (node,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    return node, subgraph


def test_the_promised_ones_are_there():
    assert {path.stem for path in PATHS} == {f"{name} (unCLIP)" for name in NAMES}


@each
def test_a_blueprint_is_one_node_named_and_explained(path):
    node, subgraph = read(path)
    assert node["type"] == subgraph["id"] and node["title"] == subgraph["name"] == path.stem
    extra = json.loads(path.read_text(encoding="utf-8"))["extra"]
    assert (
        extra["BlueprintDescription"] == subgraph["description"].strip() and "unclip" in extra["BlueprintSearchAliases"]
    )
    for slots in ("inputs", "outputs"):
        assert [(slot["name"], slot["type"]) for slot in node[slots]] == [
            (slot["name"], slot["type"]) for slot in subgraph[slots]
        ]


@each
def test_its_nodes_have_todays_inputs_in_their_order_and_all_that_they_need(path):
    for node in read(path)[1]["nodes"]:
        kinds = CLASSES[node["type"]].INPUT_TYPES()
        declared = {**kinds["required"], **kinds.get("optional", {})}
        widgets = [slot["name"] for slot in node["inputs"] if "widget" in slot]
        values = [name for name, spec in declared.items() if is_widget(spec)]
        assert widgets == values
        seeds = sum(bool(declared[name][1].get("control_after_generate")) for name in widgets)
        assert len(node.get("widgets_values", [])) == len(widgets) + seeds
        linked = {slot["name"] for slot in node["inputs"] if slot.get("link") is not None}
        assert set(kinds["required"]) - set(widgets) <= linked, node["type"]


def is_widget(spec):
    return isinstance(spec[0], list) or (spec[0] in ("INT", "FLOAT", "STRING") and not spec[1].get("forceInput"))


@each
def test_every_link_fits_at_both_ends(path):
    subgraph = read(path)[1]
    nodes, used = {node["id"]: node for node in subgraph["nodes"]}, set()
    for link in subgraph["links"]:
        if link["origin_id"] == BOUNDARY_IN:
            source = subgraph["inputs"][link["origin_slot"]]
            assert link["id"] in source["linkIds"]
        else:
            source = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in source["links"]
        if link["target_id"] == BOUNDARY_OUT:
            target = subgraph["outputs"][link["target_slot"]]
            assert link["id"] in target["linkIds"]
        else:
            target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
            assert target["link"] == link["id"]
        assert source["type"] == target["type"] == link["type"]
        used.add(source["name"])
    assert all(slot["linkIds"] for slot in [*subgraph["inputs"], *subgraph["outputs"]])
