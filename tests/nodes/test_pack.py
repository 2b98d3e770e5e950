"""The pack as ComfyUI meets it: ids, inputs and their order, defaults, words, help pages, import."""

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from released_nodes import NODES as RELEASED

import unclip
from unclip.unclip_core.diffusion.samplers import SAMPLERS

ROOT = Path(unclip.__file__).parent
CLASSES = unclip.NODE_CLASS_MAPPINGS

WIDGETS = {"BOOLEAN", "INT", "FLOAT", "STRING", "COMBO"}
STOCK_IDS = {"unCLIPConditioning", "unCLIPCheckpointLoader", "CLIPTextEncode", "CLIPVisionEncode"}


def inputs(node_id):
    """name -> (type, options) of a node, required inputs first, in order."""
    kinds = CLASSES[node_id].INPUT_TYPES()
    return {**kinds.get("required", {}), **kinds.get("optional", {})}


def type_of(kind):
    return "COMBO" if isinstance(kind, list) else kind


each_node = pytest.mark.parametrize("node_id", RELEASED)


def test_the_mappings_hold_exactly_the_released_nodes():
    assert set(CLASSES) == set(RELEASED)
    assert {key: node.name for key, node in RELEASED.items()} == unclip.NODE_DISPLAY_NAME_MAPPINGS
    assert all(key.startswith("Unclip") for key in CLASSES) and not STOCK_IDS & set(CLASSES)


def test_searches_list_the_usual_nodes_first():
    """The canvas lists in this order what fits a word, or a wire that was dragged out, equally well."""
    order = [node.removeprefix("Unclip") for node in CLASSES]
    assert [node for node in order if "unclip" in CLASSES[f"Unclip{node}"].SEARCH_ALIASES] == [
        "LoadModel", "TextEncode", "PriorSample", "DecoderSample", "Upscale",
    ]  # fmt: skip
    of_embedding = [n for n in order if "UNCLIP_EMBEDDING" in [spec[0] for spec in inputs(f"Unclip{n}").values()]]
    usual = ["DecoderSample", "EmbeddingInterpolate", "EmbeddingBlend", "TextDiff", "Describe", "Inpaint"]
    assert [node for node in of_embedding[: of_embedding.index("PcaFit")] if node in usual] == usual


@pytest.mark.parametrize(
    ("word", "node_id"),
    [
        ("img2img", "UnclipImageEncode"), ("img2img", "UnclipDecoderSample"), ("variation", "UnclipDecoderSample"),
        ("interpolate images", "UnclipEmbeddingInterpolate"), ("edit", "UnclipTextDiff"), ("edit", "UnclipInpaint"),
        ("merge", "UnclipEmbeddingBlend"), ("merge", "UnclipEmbeddingInterpolate"),
    ],
)  # fmt: skip
def test_peoples_words_find_the_nodes(word, node_id):
    assert word in CLASSES[node_id].SEARCH_ALIASES


@each_node
def test_inputs_and_their_order_are_the_released_ones(node_id):
    kinds = CLASSES[node_id].INPUT_TYPES()
    released = RELEASED[node_id]
    for group, expected in (("required", released.required), ("optional", released.optional)):
        found = [(name, type_of(spec[0])) for name, spec in kinds.get(group, {}).items()]
        assert found == list(expected.items())
    assert "hidden" not in kinds


@each_node
def test_outputs_are_the_released_ones_and_explained(node_id):
    node = CLASSES[node_id]
    assert list(zip(node.RETURN_NAMES, node.RETURN_TYPES, strict=True)) == list(RELEASED[node_id].outputs.items())
    assert len(node.OUTPUT_TOOLTIPS) == len(node.RETURN_TYPES)
    assert all(len(tooltip) > 15 for tooltip in node.OUTPUT_TOOLTIPS)


@each_node
def test_every_input_is_explained(node_id):
    for name, spec in inputs(node_id).items():
        assert len(spec[1]["tooltip"]) > 10, name


@each_node
def test_the_python_defaults_are_the_widgets(node_id):
    """The server leaves a missing optional input, and the headless runner any, to the Python default."""
    node = CLASSES[node_id]
    parameters = dict(inspect.signature(getattr(node, node.FUNCTION)).parameters)
    parameters.pop("self")
    assert list(parameters) == list(inputs(node_id))
    for name, (kind, options) in inputs(node_id).items():
        if type_of(kind) in WIDGETS and not options.get("forceInput"):
            assert parameters[name].default == options["default"], name
            assert type(parameters[name].default) is type(options["default"]), name
        elif name in node.INPUT_TYPES().get("optional", {}):
            assert parameters[name].default is None
        else:
            assert parameters[name].default is inspect.Parameter.empty, name


@each_node
def test_numbers_have_limits_and_a_step_that_shows_the_default(node_id):
    for name, (kind, options) in inputs(node_id).items():
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= options["default"] <= options["max"], name
        if kind == "FLOAT":
            ticks = options["default"] / options["step"]
            assert ticks == pytest.approx(round(ticks)), name
        if isinstance(kind, list):
            assert options["default"] in kind, name


@each_node
def test_validation_names_inputs_and_takes_their_defaults(node_id):
    """Read as ComfyUI reads it: by getfullargspec."""
    node = CLASSES[node_id]
    if hasattr(node, "VALIDATE_INPUTS"):
        named = inspect.getfullargspec(node.VALIDATE_INPUTS)
        assert named.args[0] == "cls" and named.varkw is None
        widgets = {name: inputs(node_id)[name][1]["default"] for name in named.args[1:]}
        assert widgets and node.VALIDATE_INPUTS(**widgets) is True
        assert node.VALIDATE_INPUTS() is True


def test_the_contracted_values():
    for node_id, fields in {
        "UnclipPriorSample": {
            "seed": (0, 0, 2**64 - 1), "steps": (0, 0, 1000), "guidance_scale": (-1.0, -1.0, 20.0),
            "candidates": (1, 1, 64), "keep": (1, 1, 64),
            "guidance_start": (0.0, 0.0, 1.0), "guidance_end": (1.0, 0.0, 1.0),
        },
        "UnclipDecoderSample": {
            "seed": (0, 0, 2**64 - 1), "steps": (0, 0, 1000), "guidance_scale": (-1.0, -1.0, 20.0),
            "eta": (0.0, 0.0, 1.0), "batch_size": (1, 1, 64),
            "guidance_start": (0.0, 0.0, 1.0), "guidance_end": (1.0, 0.0, 1.0),
        },
        "UnclipUpscale": {"seed": (0, 0, 2**64 - 1), "steps": (0, 0, 1000)},
        "UnclipEmbeddingInterpolate": {
            "t": (0.5, 0.0, 1.0), "frames": (1, 1, 256), "t_end": (1.0, 0.0, 1.0),
        },
        "UnclipImageGrid": {"columns": (0, 0, 64)},
    }.items():  # fmt: skip
        for name, (default, low, high) in fields.items():
            options = inputs(node_id)[name][1]
            found = (options["default"], options["min"], options["max"])
            assert found == (default, low, high), (node_id, name)


def test_seeds_can_count_up_and_samplers_are_the_registry():
    for node_id in ("UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale"):
        assert inputs(node_id)["seed"][1]["control_after_generate"] is True
    for node_id in ("UnclipPriorSample", "UnclipDecoderSample"):
        assert inputs(node_id)["sampler"][0] == [*SAMPLERS, "auto"]
        assert inputs(node_id)["sampler"][1]["advanced"] is True
    assert inputs("UnclipDecoderSample")["eta"][1]["advanced"] is True


@each_node
def test_words_for_the_search_and_the_menu(node_id):
    node = CLASSES[node_id]
    assert node.CATEGORY.startswith("unCLIP/")
    assert len(node.DESCRIPTION) > 30
    assert len(node.SEARCH_ALIASES) >= 3
    assert callable(getattr(node, node.FUNCTION))


def test_the_search_finds_the_pack_by_what_it_is_known_for():
    aliases = {alias for node in CLASSES.values() for alias in node.SEARCH_ALIASES}
    assert {"unclip", "dall-e 2", "dalle2", "karlo", "prior", "slerp"} <= aliases
    assert len(aliases) > 3 * len(CLASSES)


@each_node
def test_the_help_page_names_every_input_and_output(node_id):
    page = (ROOT / unclip.WEB_DIRECTORY / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {unclip.NODE_DISPLAY_NAME_MAPPINGS[node_id]}\n")
    for name in [*inputs(node_id), *CLASSES[node_id].RETURN_NAMES]:
        assert f"- **{name}**" in page, name


@each_node
def test_the_help_page_has_an_image(node_id):
    """If it is missing: .ci/thumbnails.py draws it."""
    docs = ROOT / unclip.WEB_DIRECTORY / "docs"
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", (docs / f"{node_id}.md").read_text(encoding="utf-8"))
    assert shown and all((docs / name).is_file() for name in shown), shown


def test_no_help_page_is_left_over():
    pages = {path.stem for path in (ROOT / unclip.WEB_DIRECTORY / "docs").glob("*.md")}
    assert pages == set(CLASSES)


def load_as_comfyui(folder):
    """A pack's module, executed as ComfyUI's `load_custom_node` does: under its folder's path as a name."""
    name = str(folder).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path, monkeypatch):
    """Makes a pack of the real door and other nodes, and loads it."""

    def make(nodes):
        monkeypatch.setattr(sys, "modules", dict(sys.modules))
        (tmp_path / "nodes").mkdir()
        (tmp_path / "nodes" / "__init__.py").write_text(nodes)
        (tmp_path / "__init__.py").write_bytes((ROOT / "__init__.py").read_bytes())
        return load_as_comfyui(tmp_path)

    return make


def test_the_door_gives_the_nodes_once_they_are_asked_for(pack):
    asked = "NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = {'A': dict}, {'A': 'the A'}"
    door = pack(asked)
    assert f"{door.__name__}.nodes" not in sys.modules and not hasattr(door, "comfy_entrypoint")
    assert hasattr(door, "NODE_CLASS_MAPPINGS") and f"{door.__name__}.nodes" in sys.modules
    assert (door.NODE_CLASS_MAPPINGS, door.NODE_DISPLAY_NAME_MAPPINGS) == ({"A": dict}, {"A": "the A"})
    assert door.NODE_CLASS_MAPPINGS is door.NODE_CLASS_MAPPINGS


@pytest.mark.parametrize("fault", ["import not_there", "raise ValueError('odd')", "raise AttributeError('odd')", ""])
def test_nodes_that_cannot_be_imported_are_not_taken_for_none(pack, fault):
    """ComfyUI asks by `hasattr`, which swallows AttributeError: it would say that there are no nodes, and not why."""
    with pytest.raises((ImportError, ValueError), match="not_there|odd|cannot import name"):
        hasattr(pack(fault), "NODE_CLASS_MAPPINGS")


def test_the_command_and_rays_workers_start_without_torch():
    """In a fresh process: every sub-command's parser, a batch for `unclip queue`, and what the driver of `unclip map`
    and its workers import before one makes a task.
    """
    code = f"""if True:
        import pickle, sys
        from pathlib import Path
        import unclip.__main__, unclip.cli.mapping.progress, unclip.cli.mapping.sources
        from unclip.cli.headless.workflow_file import read_workflow
        from unclip.cli.mapping.job import Job, Worker
        from unclip.cli.mapping.results import Output
        from unclip.cli.mapping.tasks import Setup
        from unclip.cli.remote.rows import Batch
        assert Batch(read_workflow(Path({str(ROOT / "workflows/api/text_to_image.json")!r}))).rows
        pickle.loads(pickle.dumps((Worker, Job(Setup("text-to-image"), "t.csv", Output("out")))))
        try:
            unclip.__main__.main(["train", "--help"])
        except SystemExit:
            pass
        heavy = {{"torch", "PIL", "ray", "unclip.nodes"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_importing_the_pack_is_light():
    """In a fresh process: no ComfyUI, no slow package is imported, no weight file is opened."""
    code = """if True:
        import sys
        opened = []
        sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
        import unclip, unclip.unclip_core.pipelines
        unclip.NODE_CLASS_MAPPINGS["UnclipLoadModel"].INPUT_TYPES()
        heavy = {"open_clip", "torchvision", "diffusers", "transformers", "comfy", "folder_paths", "server"}
        heavy |= {"unclip.cli.headless", "unclip.cli.remote"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        assert any(name.endswith((".py", ".pyc")) for name in opened)
        weights = [name for name in opened if name.endswith((".safetensors", ".pt", ".bin"))]
        assert not weights, weights
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
