"""The pack in a real ComfyUI: it imports, and the canvas gets all of its nodes, their words, pages and templates."""

import json
import shutil

import pytest
from comfy_server import PLUGIN, ROOT
from released_nodes import NODES

from unclip.nodes.defaults import MODELS

pytestmark = pytest.mark.comfyui

WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


@pytest.fixture(scope="module")
def infos(server):
    return server.get("/object_info")


def options(info):
    """Each input's options, required or not."""
    return {name: spec[1] for kind in info["input"].values() for name, spec in kind.items()}


def test_the_pack_imports_without_a_complaint(server):
    log = server.log().split("got prompt")[0]  # what other tests ask for may well go wrong
    assert f"/custom_nodes/{PLUGIN}" in log.replace("\\", "/").split("Import times for custom nodes:")[1]
    assert "IMPORT FAILED" not in log and "Cannot import" not in log and "Traceback" not in log, log


def test_the_server_has_exactly_our_nodes(infos):
    assert {name for name, info in infos.items() if info["python_module"] == f"custom_nodes.{PLUGIN}"} == set(NODES)


@pytest.mark.parametrize("node_id", NODES)
def test_a_node_has_its_names_sockets_and_words(infos, node_id):
    info, released = infos[node_id], NODES[node_id]
    inputs = [*released.required, *released.optional]
    assert info["display_name"] == released.name
    assert info["category"].startswith("unCLIP/")
    assert [each for kind in ("required", "optional") for each in info["input_order"].get(kind, [])] == inputs
    assert dict(zip(info["output_name"], info["output"], strict=True)) == released.outputs
    assert len(info["description"]) > 40 and info["search_aliases"]
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])
    assert {each: bool(option.get("tooltip")) for each, option in options(info).items()} == dict.fromkeys(inputs, True)


@pytest.mark.parametrize("node_id", ["UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale"])
def test_a_seed_is_any_64_bits_and_has_its_control(infos, node_id):
    seed = options(infos[node_id])["seed"]
    assert (seed["min"], seed["max"]) == (0, 2**64 - 1) and seed["control_after_generate"] is True


def test_a_model_folder_shows_up_at_the_next_refresh(server):
    folder = server.base / "models" / "unclip" / "family" / "one"

    def listed():
        return server.get("/object_info/UnclipLoadModel")["UnclipLoadModel"]["input"]["required"]["model"][0]

    assert listed()[: len(MODELS)] == [*MODELS] and listed()[-1] == "bundled (tiny)" and "family/one" not in listed()
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"format": "unclip-v1", "family": "tiny", "components": {}}))
    try:
        assert "family/one" in listed()
    finally:
        shutil.rmtree(folder.parent)
    assert "family/one" not in listed()


@pytest.mark.parametrize("node_id", NODES)
def test_a_node_has_its_help_page(server, node_id):
    status, page = server.open(f"/extensions/{PLUGIN}/docs/{node_id}.md")
    assert status == 200
    assert NODES[node_id].name in page.decode("utf-8").splitlines()[0]


def test_the_canvas_gets_the_words_of_every_node_in_every_language(server):
    words = server.get("/api/i18n")
    languages = sorted(path.name for path in (ROOT / "locales").iterdir() if path.is_dir())
    assert set(languages) <= set(words) and len(languages) == 9
    for language in languages:
        written = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        names = {node_id: words[language]["nodeDefs"][node_id]["display_name"] for node_id in written}
        assert all(names.values())
        assert language == "en" or names["UnclipLoadModel"] != NODES["UnclipLoadModel"].name


def test_the_workflows_are_templates_with_thumbnails(server):
    assert sorted(server.get("/api/workflow_templates")[PLUGIN]) == WORKFLOWS
    for name in WORKFLOWS:
        status, body = server.open(f"/api/workflow_templates/{PLUGIN}/{name}.json")
        assert status == 200 and json.loads(body)["nodes"]
        status, body = server.open(f"/api/workflow_templates/{PLUGIN}/{name}.jpg")
        assert status == 200 and body.startswith(b"\xff\xd8"), f"no thumbnail {name}.jpg"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_comfyuis_own_tool_converts_a_workflow_to_its_api_twin_and_finds_no_fault(infos, name):
    """With what the server itself says of every node, stock ones too; an unknown value of a list would be a fault."""
    from comfy_cli.cql.engine import Graph
    from comfy_cli.workflow_to_api import convert_ui_to_api

    paths = [ROOT / "workflows" / f"{name}.json", ROOT / "workflows" / "api" / f"{name}.json"]
    ui, twin = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    assert convert_ui_to_api(ui, infos) == twin
    assert Graph.from_object_info(infos).validate_workflow(twin) == {"valid": True, "errors": [], "warnings": []}
