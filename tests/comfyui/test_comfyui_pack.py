"""The pack in a real ComfyUI: it imports, and the canvas gets all of its nodes, their words, pages and templates."""

import json
import shutil

import pytest
from comfy_server import PLUGIN, ROOT

pytestmark = pytest.mark.comfyui

# id: (name on the canvas, inputs in their order, outputs)
NODES = {
    "UnclipLoadModel": ("Load unCLIP Model", "model dtype", "clip prior decoder upscaler"),
    "UnclipTextEncode": ("CLIP Text Encode (unCLIP)", "clip text", "text"),
    "UnclipImageEncode": ("CLIP Image Encode (unCLIP)", "clip image", "embedding"),
    "UnclipPriorSample": (
        "Prior Sample (unCLIP)",
        "prior text seed steps guidance_scale sampler candidates keep decoder "
        "guidance_start guidance_end",
        "embedding scores",
    ),
    "UnclipDecoderSample": (
        "Decoder Sample (unCLIP)",
        "decoder embedding seed steps guidance_scale sampler eta batch_size text noise clip clip_text clip_strength "
        "embedding_noise guidance_start guidance_end",
        "image",
    ),
    "UnclipRerank": ("Rerank (unCLIP)", "clip text image keep", "image scores"),
    "UnclipUpscale": ("Upscale (unCLIP)", "upscaler image seed steps known mask", "image"),
    "UnclipEmbeddingInterpolate": (
        "Embedding Interpolate (unCLIP)", "embedding_a embedding_b t frames t_end method", "embedding",
    ),
    "UnclipImageGrid": ("Image Grid (unCLIP)", "images columns images_2 images_3 images_4", "image"),
    "UnclipEmbeddingBlend": (
        "Embedding Blend (unCLIP)",
        " ".join([f"weight_{i}" for i in range(1, 9)] + [f"embedding_{i}" for i in range(1, 9)]),
        "embedding",
    ),
    "UnclipEmbeddingBatch": (
        "Embedding Batch (unCLIP)", " ".join(f"embedding_{i}" for i in range(1, 9)), "embedding",
    ),
    "UnclipTextDiff": ("Text Diff (unCLIP)", "embedding text_before text_after theta frames", "embedding"),
    "UnclipTextEncodeLines": ("CLIP Text Encode Lines (unCLIP)", "clip lines", "text"),
    "UnclipPcaFit": ("PCA Fit (unCLIP)", "embedding dimensions", "basis"),
    "UnclipPcaReconstruct": ("PCA Reconstruct (unCLIP)", "basis embedding dimensions", "embedding"),
    "UnclipSavePca": ("Save PCA Basis (unCLIP)", "basis filename_prefix", "file"),
    "UnclipLoadPca": ("Load PCA Basis (unCLIP)", "file saved", "basis"),
    "UnclipSaveEmbedding": ("Save Embedding (unCLIP)", "embedding filename_prefix", "file"),
    "UnclipLoadEmbedding": ("Load Embedding (unCLIP)", "file saved", "embedding info"),
    "UnclipToClipVision": ("To CLIP Vision Output (unCLIP)", "embedding", "clip_vision_output"),
    "UnclipFromClipVision": ("From CLIP Vision Output (unCLIP)", "clip clip_vision_output", "embedding"),
    "UnclipEmbeddingSimilarity": ("Embedding Similarity (unCLIP)", "a b", "image matrix"),
    "UnclipDescribe": ("CLIP Describe (unCLIP)", "clip embedding phrases top_k custom", "caption scores"),
    "UnclipNoiseInterpolate": ("Noise Interpolate (unCLIP)", "noise_a noise_b t frames t_end", "noise"),
    "UnclipDdimInversion": (
        "DDIM Inversion (unCLIP)", "decoder embedding image steps guidance_scale iterations text", "noise image",
    ),
    "UnclipInpaint": (
        "Inpaint (unCLIP)", "decoder embedding image mask seed steps guidance_scale resamples text", "image",
    ),
    "UnclipOutpaint": (
        "Outpaint (unCLIP)",
        "decoder embedding image left top right bottom seed steps guidance_scale resamples text",
        "image known mask",
    ),
    "UnclipForwardDiffusion": (
        "Forward Diffusion (unCLIP)", "decoder image seed timesteps", "strip frames snr_plot",
    ),
    "UnclipDenoisingFilm": (
        "Denoising Film (unCLIP)",
        "decoder embedding seed steps guidance_scale sampler eta every text",
        "strip states guesses image",
    ),
    "UnclipClipOptimise": (
        "CLIP Optimise (unCLIP)",
        "clip text seed steps width height learning_rate cutouts smoothness image",
        "image",
    ),
    "UnclipApplyLora": (
        "Apply LoRA (unCLIP)", "lora_name strength_prior strength_decoder prior decoder", "prior decoder",
    ),
}  # fmt: skip
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
    info, (name, inputs, outputs) = infos[node_id], NODES[node_id]
    assert info["display_name"] == name
    assert info["category"].startswith("unCLIP/")
    assert [each for kind in ("required", "optional") for each in info["input_order"].get(kind, [])] == inputs.split()
    assert info["output_name"] == outputs.split()
    assert len(info["description"]) > 40 and info["search_aliases"]
    assert len(info["output_tooltips"]) == len(info["output"]) and all(info["output_tooltips"])
    assert {each: bool(option.get("tooltip")) for each, option in options(info).items()} == dict.fromkeys(
        inputs.split(), True
    )


@pytest.mark.parametrize("node_id", ["UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale"])
def test_a_seed_is_any_64_bits_and_has_its_control(infos, node_id):
    seed = options(infos[node_id])["seed"]
    assert (seed["min"], seed["max"]) == (0, 2**64 - 1) and seed["control_after_generate"] is True


def test_a_model_folder_shows_up_at_the_next_refresh(server):
    folder = server.base / "models" / "unclip" / "family" / "one"

    def listed():
        return server.get("/object_info/UnclipLoadModel")["UnclipLoadModel"]["input"]["required"]["model"][0]

    assert listed()[0] == "bundled (tiny)" and "family/one" not in listed()
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
    assert NODES[node_id][0] in page.decode("utf-8").splitlines()[0]


def test_the_canvas_gets_the_words_of_every_node_in_every_language(server):
    words = server.get("/api/i18n")
    languages = sorted(path.name for path in (ROOT / "locales").iterdir() if path.is_dir())
    assert set(languages) <= set(words) and len(languages) == 9
    for language in languages:
        names = {node_id: words[language]["nodeDefs"][node_id]["display_name"] for node_id in NODES}
        assert all(names.values())
        assert language == "en" or names["UnclipLoadModel"] != NODES["UnclipLoadModel"][0]


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
