"""The bundled workflows: the canvas files and their API twins say the same, and what they say holds."""

import itertools
import json
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from unclip import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from unclip.cli.headless import run
from unclip.cli.headless.prompt import parse
from unclip.cli.headless.stock import FOLDERS, STOCK_NODES, Folders
from unclip.cli.headless.validate import plan
from unclip.nodes import host
from unclip.nodes.sampling import AUTO
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import StageSettings

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
ALL = sorted(path.stem for path in FOLDER.glob("*.json"))
NEEDS_COMFYUI = {
    "karlo_to_sd21_unclip", "kandinsky_to_sdxl_revision", "sdxl_revision_blend", "stable_cascade_blend"
}  # fmt: skip  # have stock nodes without a stand-in; tests/comfyui opens them
NAMES = [name for name in ALL if name not in NEEDS_COMFYUI]
FAMILIES = ("karlo", "kandinsky", "eclipse")  # whose weights are to be downloaded
BUNDLED = [name for name in NAMES if not name.startswith(FAMILIES)]
DOWNLOADED = [name for name in NAMES if name.startswith(FAMILIES)]
# of the images that small random models draw, in few steps and at 96 px where the workflow says how large
SIZES = {
    "karlo_text_to_image": (64, 64), "karlo_image_variations": (128, 128), "eclipse_karlo": (64, 64),
    "kandinsky_text_to_image": (96, 96), "kandinsky_blend": (96, 96), "kandinsky_image_variations": (128, 128),
    "kandinsky_inpaint": (256, 256), "kandinsky_depth": (96, 96), "eclipse_kandinsky": (96, 96),
}  # fmt: skip
CLASSES = {**STOCK_NODES, **NODE_CLASS_MAPPINGS}
STOCK_TITLES = {
    "LoadImage": "Load Image", "SaveImage": "Save Image", "PreviewAny": "Preview as Text",
    "PreviewImage": "Preview Image",
    "ImageCompare": "Compare Images",
}  # fmt: skip
TITLES = {**STOCK_TITLES, **NODE_DISPLAY_NAME_MAPPINGS}
TITLE_HEIGHT = 30
BYPASSED = 4
FROM_NOISE = {"ddim_inversion", "interpolate_pictures", "text_diff", "variations"}  # that is found: ddim, no guidance
# One draws without the embedding, too; one in few steps; and one shows each of many.
OWN_SETTINGS = FROM_NOISE | {"clip_guidance", "embedding_pad", "denoising_film"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "IMAGECOMPARE"}


def read(*parts):
    return json.loads(FOLDER.joinpath(*parts).read_text(encoding="utf-8"))


def drawn(canvas):
    return [node for node in canvas["nodes"] if node["type"] != "MarkdownNote"]


def as_api(canvas):
    """A canvas workflow in the API format, for the bundled graphs: no subgraphs, none but Load Image bypassed."""
    used = [node for node in drawn(canvas) if node["mode"] != BYPASSED]
    ids = {node["id"] for node in used}
    sources = {link[0]: [str(link[1]), link[2]] for link in canvas["links"] if link[1] in ids}
    prompt = {}
    for node in used:
        values = ({"__value__": value} if isinstance(value, list) else value for value in node["widgets_values"])
        inputs = {}
        for entry in node["inputs"]:
            if "widget" in entry:
                inputs[entry["name"]] = next(values)
                if entry["name"] == "seed":
                    assert next(values) in ("fixed", "randomize", "increment", "decrement")
            if entry["link"] in sources:
                inputs[entry["name"]] = sources[entry["link"]]
        assert list(values) == []
        title = node.get("title") or TITLES.get(node["type"], node["type"])
        prompt[str(node["id"])] = {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}
    return prompt


def object_info():
    """What a ComfyUI server says of the node classes, as far as the conversion needs it."""
    info = {}
    for key, node_class in CLASSES.items():
        inputs = node_class.INPUT_TYPES()
        info[key] = {
            "name": key,
            "display_name": TITLES.get(key, key),
            "input": inputs,
            "input_order": {kind: list(entries) for kind, entries in inputs.items()},
            "output": list(node_class.RETURN_TYPES),
            "output_name": list(getattr(node_class, "RETURN_NAMES", node_class.RETURN_TYPES)),
            "output_node": getattr(node_class, "OUTPUT_NODE", False),
        }
    info["SaveImage"]["input"].pop("hidden")
    return json.loads(json.dumps(info))


@pytest.fixture
def furnished(kandinsky_models, monkeypatch):
    """Small random models under the names that the workflows have, and an image to load; the folder of all."""
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(kandinsky_models))
    return kandinsky_models


def test_both_kinds_are_there():
    assert {"text_to_image", "text_to_image_candidates", "interpolate_prompts"} <= set(NAMES)
    assert NEEDS_COMFYUI <= set(ALL)
    assert ALL == sorted(path.stem for path in FOLDER.glob("api/*.json"))
    assert ALL == sorted(path.stem for path in FOLDER.glob("*.jpg"))


@pytest.mark.parametrize("name", NAMES)
def test_the_canvas_workflow_is_its_api_twin(name):
    assert as_api(read(f"{name}.json")) == read("api", f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_comfyuis_own_tool_converts_it_to_the_same(name):
    from comfy_cli.workflow_to_api import convert_ui_to_api

    assert convert_ui_to_api(read(f"{name}.json"), object_info()) == read("api", f"{name}.json")


@pytest.mark.parametrize("name", NAMES)
def test_the_api_twin_is_valid(name, tmp_path, furnished):
    nodes, _ = parse(read("api", f"{name}.json"))
    order = plan(nodes, run.node_classes(), {FOLDERS: Folders(tmp_path, (furnished,))})
    assert {node.id for node in order} == set(nodes)
    for node in nodes.values():
        assert set(node.inputs) >= set(CLASSES[node.class_type].INPUT_TYPES()["required"])


@cache
def unknown_words(model):
    return load_model(host.model_path(model)).clip.adapter.unknown_words


@pytest.mark.parametrize("name", BUNDLED)
def test_prompts_use_words_that_the_bundled_model_knows(name):
    inputs = [node["inputs"] for node in read("api", f"{name}.json").values()]
    texts = [entries[key] for entries in inputs for key in ("text", "lines") if isinstance(entries.get(key), str)]
    prompts = [line for text in texts for line in text.splitlines()]
    (model,) = {entries["model"] for entries in inputs if "dtype" in entries}
    assert prompts and not any(map(unknown_words(model), prompts))


@pytest.mark.parametrize("name", NAMES)
def test_slots_are_those_of_the_classes(name):
    for node in drawn(read(f"{name}.json")):
        declared = CLASSES[node["type"]].INPUT_TYPES()
        entries = {**declared["required"], **declared.get("optional", {})}
        kinds = {key: "COMBO" if isinstance(entry[0], list) else entry[0] for key, entry in entries.items()}
        forced = {key for key, entry in entries.items() if entry[1:] and entry[1].get("forceInput")}
        sockets = [key for key, kind in kinds.items() if kind not in WIDGETS or key in forced]
        widgets = [key for key in kinds if key not in sockets]
        assert [entry["name"] for entry in node["inputs"]] == sockets + widgets
        assert {entry["name"]: entry["type"] for entry in node["inputs"]} == kinds
        assert [entry["type"] for entry in node["outputs"]] == list(CLASSES[node["type"]].RETURN_TYPES)


@pytest.mark.parametrize("name", NAMES)
def test_links_are_known_at_both_ends(name):
    canvas = read(f"{name}.json")
    nodes = {node["id"]: node for node in canvas["nodes"]}
    ends = set()
    for key, source, output, to, slot, kind in canvas["links"]:
        assert nodes[to]["inputs"][slot]["link"] == key
        assert key in nodes[source]["outputs"][output]["links"]
        assert kind == nodes[source]["outputs"][output]["type"]
        assert {kind, "*"} & set(nodes[to]["inputs"][slot]["type"].split(","))
        assert nodes[source]["order"] < nodes[to]["order"]
        ends |= {("in", to, slot), ("out", source, key)}
    inputs = {
        ("in", node["id"], slot)
        for node in nodes.values()
        for slot, entry in enumerate(node["inputs"])
        if entry["link"] is not None
    }
    outputs = {
        ("out", node["id"], key) for node in nodes.values() for entry in node["outputs"] for key in entry["links"] or ()
    }
    assert ends == inputs | outputs
    assert canvas["version"] == 0.4
    assert canvas["last_node_id"] == max(nodes) and len(nodes) == len(canvas["nodes"])
    assert canvas["last_link_id"] == max(link[0] for link in canvas["links"])
    assert sorted(node["order"] for node in nodes.values()) == list(range(len(nodes)))


def box(node):
    """Left, top, right, bottom of a node with its title bar."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE_HEIGHT, x + width, y + height


@pytest.mark.parametrize("name", ALL)
def test_the_layout_is_folded_into_what_a_usual_window_shows_legibly(name):
    """ComfyUI fits a template into three quarters of its window, and leaves texts below 8 px out; they have 14."""
    canvas = read(f"{name}.json")
    boxes = [box(node) for node in canvas["nodes"]]
    width = max(a[2] for a in boxes) - min(a[0] for a in boxes)
    height = max(a[3] for a in boxes) - min(a[1] for a in boxes)
    assert 1 <= width / height <= 2.2
    assert min(0.75 * 1600 / (width + 20), 0.75 * 1000 / (height + 20)) >= 8 / 14
    assert "ds" not in canvas["extra"]  # a view of its own would be that of one window


@pytest.mark.parametrize("name", ALL)
def test_the_layout_runs_to_the_right_and_down_without_overlaps(name):
    canvas = read(f"{name}.json")
    for one, other in itertools.combinations(canvas["nodes"], 2):
        a, b = box(one), box(other)
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (one["id"], other["id"])
    nodes = {node["id"]: node for node in canvas["nodes"]}
    for _, source, _, to, _, _ in canvas["links"]:
        a, b = box(nodes[source]), box(nodes[to])
        assert a[2] < b[0] or a[3] < b[1], (source, to)
    around = [group["bounding"] for group in canvas["groups"]]
    for node in canvas["nodes"]:
        a = box(node)
        inside = [x <= a[0] and y <= a[1] and a[2] <= x + w and a[3] <= y + h for x, y, w, h in around]
        assert sum(inside) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_note_explains_it(name):
    notes = [node for node in read(f"{name}.json")["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == 1 and len(notes[0]["widgets_values"][0]) > 100
    assert "`" not in notes[0]["widgets_values"][0]  # blue on the note's brown, which nobody can read


def test_five_open_as_a_form_too_and_as_a_graph_first():
    """ComfyUI's app mode: which widgets its form shows, each with a sentence, and whose images."""
    extras = {name: read(f"{name}.json")["extra"] for name in ALL}
    apps = {name for name, extra in extras.items() if extra}
    assert apps == {"text_to_image", "variations", "blend", "text_diff", "inpaint"}
    for name in apps:
        api, form = read("api", f"{name}.json"), extras[name]["linearData"]
        assert extras[name]["linearMode"] is False
        assert not any(isinstance(api[str(node)]["inputs"][widget], list) for node, widget, _ in form["inputs"])
        assert all(len(more["description"]) > 10 for _, _, more in form["inputs"])
        assert [api[str(node)]["class_type"] for node in form["outputs"]] == ["SaveImage"]


@pytest.mark.parametrize("name", NAMES)
def test_an_advanced_input_that_is_set_is_not_folded_away(name):
    api = read("api", f"{name}.json")
    for node in drawn(read(f"{name}.json")):
        if node["mode"] == BYPASSED:
            continue
        declared = CLASSES[node["type"]].INPUT_TYPES()
        advanced = {key: spec[1] for kind in ("required", "optional") for key, spec in declared.get(kind, {}).items()
                    if spec[1:] and spec[1].get("advanced")}  # fmt: skip
        inputs = api[str(node["id"])]["inputs"]
        chosen = {key for key, option in advanced.items() if inputs.get(key) not in (None, option.get("default"))}
        assert node.get("showAdvanced", False) is bool(chosen), (node["id"], chosen)


@pytest.mark.parametrize("name", [name for name in BUNDLED if name not in OWN_SETTINGS])
def test_sampling_settings_are_the_nodes_defaults(name):
    for node in read("api", f"{name}.json").values():
        entries = CLASSES[node["class_type"]].INPUT_TYPES()["required"]
        for key in {"steps", "guidance_scale", "sampler", "eta"} & set(node["inputs"]):
            assert node["inputs"][key] == entries[key][1]["default"], (node["class_type"], key)


@pytest.mark.parametrize("name", [name for name in ALL if name.startswith(FAMILIES)])
def test_workflows_of_other_models_leave_the_settings_to_them(name):
    nodes = [node for node in read("api", f"{name}.json").values() if "steps" in node["inputs"]]
    ours = [node["inputs"] for node in nodes if node["class_type"].startswith("Unclip")]
    assert ours
    for given in ours:
        assert all(given[name] == auto for name, auto in AUTO.items() if name in given)


def test_karlos_settings_are_its_authors(furnished):
    """Their sampling configuration: 25 steps and guidance 4 and 8, 7 steps of super-resolution, all ancestral."""
    model = load_model(furnished / "karlo-v1-alpha")
    assert model.prior.settings == StageSettings(25, 4.0, "ddpm")
    assert model.decoder.settings == StageSettings(25, 8.0, "ddpm")
    assert model.upsampler.settings == StageSettings(7, 1.0, "ddpm")


@pytest.mark.slow
def test_another_model_in_a_workflow_brings_its_own_settings(tmp_path, furnished):
    """Karlo in the bundled model's workflow draws what its explicit settings draw."""
    prompt = read("api", "text_to_image.json")
    explicit = {
        "UnclipPriorSample": {"steps": 25, "guidance_scale": 4.0, "sampler": "ddpm"},
        "UnclipDecoderSample": {"steps": 25, "guidance_scale": 8.0, "sampler": "ddpm"},
        "UnclipUpscale": {"steps": 7},
    }
    images = []
    for given in ({}, explicit):
        for node in prompt.values():
            if node["class_type"] == "UnclipLoadModel":
                node["inputs"]["model"] = "karlo-v1-alpha"
            if "candidates" in node["inputs"]:
                node["inputs"] |= {"candidates": 1, "keep": 1}
            node["inputs"] |= given.get(node["class_type"], {})
        report = run.run_workflow(prompt, output_dir=tmp_path / str(len(images)))
        assert report.status == "ok", report.errors
        images.append(Image.open(report.outputs[0].path).convert("RGB").tobytes())
    assert images[0] == images[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", DOWNLOADED)
def test_workflows_of_other_models_run_to_the_end(name, tmp_path, furnished):
    prompt = read("api", f"{name}.json")
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
        if node["inputs"].get("width"):
            node["inputs"] |= {"width": 96, "height": 96}
    report = run.run_workflow(prompt, output_dir=tmp_path, input_dirs=(furnished,))
    assert report.status == "ok", report.errors
    (saved,) = report.outputs
    with Image.open(saved.path) as image:
        assert image.size == SIZES[name]
        assert image.convert("L").getextrema()[0] < image.convert("L").getextrema()[1]


def test_a_wire_between_families_is_refused_with_a_sentence(tmp_path, furnished):
    prompt = read("api", "karlo_text_to_image.json")
    prompt["9"] = {"class_type": "UnclipLoadModel", "inputs": {"model": "bundled (shapes)", "dtype": "auto"}}
    (decoder,) = [node for node in prompt.values() if node["class_type"] == "UnclipDecoderSample"]
    decoder["inputs"]["decoder"] = ["9", 2]
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 1
    report = run.run_workflow(prompt, output_dir=tmp_path, input_dirs=(furnished,))
    (error,) = report.errors
    assert "'karlo-16'" in error.message and "'tiny'" in error.message and error.traceback is None
