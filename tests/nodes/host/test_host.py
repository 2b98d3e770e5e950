"""The host with and without ComfyUI. ComfyUI is a stand-in here; tests/comfyui runs the real one."""

import logging
import os
import sys
import types
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unclip.nodes import defaults, host
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import PartValue
from unclip.unclip_core.diffusion.loop import StepInfo
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.lora.delta import Lora
from unclip.unclip_core.models import Clip, Prior
from unclip.unclip_core.nets import step_graphs
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.weights import devices


class Interrupted(BaseException):
    """As ComfyUI's InterruptProcessingException: no Exception."""


class OutOfMemory(RuntimeError):
    """What the stand-in calls out of memory."""


def a_step(index=0, total=3, x0=None):
    x0 = torch.zeros(2, 3, 4, 4) if x0 is None else x0
    return StepInfo(index=index, total=total, t=0, x=x0, x0=x0)


def a_part():
    return SimpleNamespace(family="tiny", module=torch.nn.Linear(2, 2))


@pytest.fixture
def comfyui(monkeypatch, tmp_path):
    """A stand-in for ComfyUI that records what it is told."""
    seen = SimpleNamespace(
        bars=[], loads=[], interrupt=False, folders={}, args=SimpleNamespace(preview_method="auto"),
        novram=False, asked=[], freed=[],
    )  # fmt: skip

    class ProgressBar:
        def __init__(self, total):
            self.calls = []
            seen.bars.append((total, self.calls))

        def update_absolute(self, value, total=None, preview=None):
            self.calls.append((value, total, preview))

    class Patcher:
        def __init__(self, model, load_device, offload_device):
            self.model, self.load_device, self.offload_device = model, load_device, offload_device

        def model_size(self):
            return 24

        def loaded_size(self):
            return 0 if seen.novram else 24

    def throw():
        if seen.interrupt:
            raise Interrupted

    def add_folder(key, folder):
        paths = seen.folders.setdefault(key, [])
        if folder not in paths:
            paths.append(folder)

    def module(name, **names):
        made = types.ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    def free(device, kept):
        loaded = management.current_loaded_models
        seen.freed += [each for each in loaded if each.device == device and each not in kept]
        loaded[:] = [each for each in loaded if each not in seen.freed]

    cpu = torch.device("cpu")
    management = module(
        "comfy.model_management",
        get_torch_device=lambda: cpu,
        intermediate_device=lambda: cpu,
        unet_offload_device=lambda: cpu,
        text_encoder_device=lambda: cpu,
        text_encoder_offload_device=lambda: torch.device("meta"),
        load_models_gpu=lambda models, **how: seen.loads.append((models, how)),
        minimum_inference_memory=lambda: 1000,
        throw_exception_if_processing_interrupted=throw,
        is_oom=lambda error: isinstance(error, OutOfMemory),
        soft_empty_cache=lambda: None,
        current_loaded_models=[],
        free_memory=lambda size, device, keep_loaded: free(device, keep_loaded),
    )
    patcher = module("comfy.model_patcher", ModelPatcher=Patcher)
    utils = module("comfy.utils", ProgressBar=ProgressBar)
    module("comfy", model_management=management, model_patcher=patcher, utils=utils)
    module(
        "folder_paths",
        models_dir=str(tmp_path),
        add_model_folder_path=add_folder,
        folder_names_and_paths=seen.folders,
        get_folder_paths=lambda key: list(seen.folders[key]),
        get_filename_list=lambda key: [file.name for folder in seen.folders[key] for file in Path(folder).iterdir()],
        get_full_path_or_raise=lambda key, name: str(Path(seen.folders[key][0], name)),
    )
    methods = SimpleNamespace(NoPreviews="none")
    module("latent_preview", args=seen.args, LatentPreviewMethod=methods)
    return seen


# ---- model folders ----


def a_model(root, name):
    folder = root.joinpath(*name.split("/"))
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def test_models_are_found_below_every_root_and_named_with_slashes(monkeypatch, tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    a_model(first, "karlo")
    a_model(first, "group/mine")
    a_model(first, "karlo/prior")
    a_model(second, "other")
    (second / "no model").mkdir()
    a_model(second, ".0f.part")
    monkeypatch.setenv(host.FOLDER_VARIABLE, f"{first}{os.pathsep}{second}")
    assert host.model_names() == [*defaults.MODELS, "group/mine", "karlo", "other", defaults.EARLIER_MODEL]
    assert host.model_path("group/mine") == str(first / "group" / "mine")
    assert host.model_path("other") == str(second / "other")


def test_a_dead_link_beside_a_configuration_takes_no_model_away(monkeypatch, tmp_path):
    a_model(tmp_path, "mine")
    for suffix in (".bin", ".pt", ".pth", ".th", ".ckpt", ".safetensors"):
        folder = tmp_path / f"other{suffix}"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / f"model{suffix}").symlink_to("gone")
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path))
    assert host.model_names() == [*defaults.MODELS, "mine", defaults.EARLIER_MODEL]
    assert host.model_path("mine") == str(tmp_path / "mine")


def test_links_are_followed_and_circles_end(monkeypatch, tmp_path):
    outside = a_model(tmp_path, "elsewhere/linked")
    root = tmp_path / "models"
    root.mkdir()
    try:
        (root / "linked").symlink_to(outside, target_is_directory=True)
        (root / "circle").symlink_to(root, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(root))
    assert host.model_names() == [*defaults.MODELS, "linked", defaults.EARLIER_MODEL]


@pytest.mark.parametrize("name", ["../secret", "gone", "", "/etc", "bundled"])
def test_a_name_that_is_not_listed_is_refused(monkeypatch, tmp_path, name):
    a_model(tmp_path, "secret")
    a_model(tmp_path, "models/mine")
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path / "models"))
    with pytest.raises(InputError, match=r"bundled \(shapes\), mine, bundled \(tiny\)"):
        host.model_path(name)


def test_the_bundled_model_is_always_there(monkeypatch):
    monkeypatch.delenv(host.FOLDER_VARIABLE, raising=False)
    assert host.model_names() == [*defaults.MODELS, "bundled (tiny)"]
    assert all(Path(host.model_path(name), "model_index.json").is_file() for name in host.model_names())


def test_workflows_that_were_saved_when_there_was_one_bundled_model_keep_it():
    """Values in workflows and configurations from before the second one."""
    assert host.model_path("bundled (tiny)") == host.model_path("bundled (shapes)") == str(SHAPES)
    assert load_model("bundled (tiny)").folder == load_model("bundled").folder == SHAPES


def test_in_comfyui_models_come_from_its_folders(comfyui, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    comfyui.folders["unclip"] = [str(elsewhere)]  # as extra_model_paths.yaml leaves it
    a_model(elsewhere, "a")
    a_model(tmp_path / "unclip", "b")
    assert host.model_names() == [*defaults.MODELS, "a", "b", defaults.EARLIER_MODEL]
    assert comfyui.folders["unclip"] == [str(elsewhere), str(tmp_path / "unclip")]


# ---- devices ----


def test_without_comfyui_a_part_has_no_patcher_and_loads_as_it_is():
    part = a_part()
    value = host.manage(part)
    assert value.part is part and value.patcher is None and value.family == "tiny"
    with host.loaded(value) as found:
        assert found is part
        assert next(part.module.parameters()).device.type == host.device().type
    assert next(part.module.parameters()).device.type == "cpu"


def test_in_comfyui_a_part_is_loaded_in_full_by_its_patcher(comfyui):
    part = a_part()
    value = host.manage(part)
    assert value.patcher.model is part.module
    with host.loaded(value) as found:
        assert found is part
        assert comfyui.loads == [([value.patcher], {"force_full_load": True})]


def test_parts_that_a_stage_needs_side_by_side_are_loaded_in_one_go(comfyui):
    """In two goes ComfyUI may unload the first one for the second."""
    first, second = host.manage(a_part()), host.manage(a_part())
    with host.loaded_together(first, second) as parts:
        assert parts == (first.part, second.part)
    assert comfyui.loads == [([first.patcher, second.patcher], {"force_full_load": True})]


def a_prior():
    net = PriorTransformer(PriorParams(2, 1, 1, 2, embed_dim=2, text_width=2, text_tokens=2))
    return Prior("tiny", net.requires_grad_(False), DiffusionSpec(), unit_norm=True)


def a_lora(strength=1.0):
    """Adds `strength` to every number of a weight of 2 x 2 numbers."""
    factors = {"blocks.0.to_v": (torch.ones(1, 2), torch.ones(2, 1))}
    return Lora(Path("a.safetensors"), "prior", "tiny", factors, {"blocks.0.to_v": 1.0}), strength


def test_a_lora_changes_weights_while_a_stage_runs_under_the_patcher_of_the_original(comfyui):
    value = host.manage(a_prior())
    adapted = host.adapted(host.adapted(value, *a_lora(0.5)), *a_lora(2.0))
    assert adapted.patcher is value.patcher and adapted.part is not value.part
    lent = value.part.net.blocks[0].to_v.weight
    before = lent.clone()
    with host.loaded_together(value, adapted) as (plain, changed):
        torch.testing.assert_close(changed.net.blocks[0].to_v.weight, before + 2.5)
        assert plain.net.blocks[0].to_v.weight is lent and torch.equal(lent, before)
        assert changed.net.blocks[0].to_q.weight is plain.net.blocks[0].to_q.weight
    assert changed.net.blocks[0].to_v.weight is lent
    # The weight that is made anew has 4 numbers of 4 bytes; ComfyUI is asked for them beside what a run takes.
    assert comfyui.loads == [([value.patcher] * 2, {"force_full_load": True, "memory_required": 1016})]


def test_recorded_steps_end_with_the_stage_that_moves_weights(comfyui, monkeypatch):
    """They hold memory, and the places of weights: kept only where ComfyUI leaves weights where they are."""
    freed = []
    monkeypatch.setattr(step_graphs.GRAPHS, "release", lambda *modules: freed.append(modules))
    value = host.manage(a_part())
    with host.loaded(value):
        assert not freed
    assert freed == [(value.part.module,)]
    monkeypatch.setattr(
        sys.modules["comfy.model_management"], "vram_state", SimpleNamespace(name="HIGH_VRAM"), raising=False
    )
    with host.loaded(value):
        pass
    assert len(freed) == 1


def test_steps_under_a_lora_are_not_recorded():
    value = host.manage(a_prior())
    net = value.part.net
    for lent, plain in ((value, False), (host.adapted(value, *a_lora()), True)):
        with host.loaded(lent):
            assert isinstance(step_graphs.stepped(net, net.step), partial) == plain


def test_a_lora_computes_where_the_original_lies():
    """Without ComfyUI: its weights are moved by hand, and the changed ones follow."""
    value = host.manage(a_prior())
    adapted = host.adapted(value, *a_lora())
    with host.loaded(adapted) as part:
        assert {parameter.device.type for parameter in part.net.parameters()} == {host.device().type}
    assert {parameter.device.type for parameter in adapted.part.net.parameters()} == {"cpu"}


def test_loras_are_listed_as_comfyui_names_them(comfyui, tmp_path):
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "._a.safetensors").touch()
    (tmp_path / "b.ckpt").touch()
    comfyui.folders["loras"] = [str(tmp_path)]
    assert host.lora_names() == ["a.safetensors"]
    assert host.lora_path("a.safetensors") == tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="no LoRA 'b.ckpt' in models/loras"):
        host.lora_path("b.ckpt")


def test_loras_without_comfyui_are_those_below_the_folders_but_hidden_ones(monkeypatch, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in ("a.safetensors", "._a.safetensors", "mine/b.bin", "mine/._b.bin", "c.ckpt"):
        (tmp_path / name).touch()
    monkeypatch.setenv(host.LORA_VARIABLE, str(tmp_path))
    assert host.lora_names() == ["a.safetensors", "mine/b.bin"]


@pytest.mark.parametrize("novram", [False, True])
@pytest.mark.parametrize("ending", ["well", "in an error"])
def test_weights_that_comfyui_does_not_know_to_be_loaded_leave_the_device(comfyui, novram, ending):
    comfyui.novram = novram
    value = host.manage(a_part())
    value.patcher.offload_device = torch.device("meta")  # where no stage could compute
    try:
        with host.loaded(value) as part:
            assert next(part.module.parameters()).device.type == "cpu"
            if ending != "well":
                raise ValueError
    except ValueError:
        pass
    assert next(value.part.module.parameters()).device.type == ("meta" if novram else "cpu")


def test_a_clip_goes_where_comfyui_has_its_text_encoders(comfyui):
    clip = Clip("tiny", SimpleNamespace(model=torch.nn.Linear(2, 2)))
    assert host.manage(clip).patcher.offload_device.type == "meta"
    assert host.manage(a_part()).patcher.offload_device.type == "cpu"


# ---- dtypes ----


@pytest.fixture
def accelerator(comfyui, monkeypatch):
    """A device other than the CPU, for which ComfyUI's rules are `rules`."""
    rules = SimpleNamespace(store=torch.float16, cast=None, asked=[])
    management = sys.modules["comfy.model_management"]
    monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(management, "text_encoder_device", lambda: torch.device("cuda"))

    def unet_dtype(device, parameters, supported):
        rules.asked.append((device.type, parameters, supported))
        return rules.store

    management.unet_dtype = unet_dtype
    management.text_encoder_dtype = lambda device: rules.store
    management.unet_manual_cast = lambda dtype, device, supported: rules.cast
    return rules


@pytest.mark.parametrize("text_encoder", [False, True])
@pytest.mark.parametrize(("choice", "dtype"), host.memory.DTYPES.items())
def test_a_chosen_dtype_is_taken(accelerator, choice, dtype, text_encoder):
    assert host.weight_dtype(choice, 10, text_encoder) == dtype


def test_auto_asks_comfyui(accelerator):
    assert host.weight_dtype("auto", 10) == torch.float16
    assert accelerator.asked == [("cuda", 10, [torch.float16, torch.bfloat16, torch.float32])]
    assert host.weight_dtype("auto", 10, text_encoder=True) == torch.float16


@pytest.mark.parametrize("text_encoder", [False, True])
def test_auto_is_what_the_device_computes_in(accelerator, text_encoder):
    """ComfyUI's own layers are stored in one dtype and cast as they run; ours are not."""
    accelerator.cast = torch.bfloat16
    assert host.weight_dtype("auto", 10, text_encoder) == torch.bfloat16


def test_auto_is_fp32_for_what_plain_layers_cannot_compute_in(accelerator):
    accelerator.store = torch.float8_e4m3fn
    assert host.weight_dtype("auto", 10) == torch.float32


def test_auto_is_fp32_on_a_cpu_and_without_comfyui(comfyui, monkeypatch):
    assert host.weight_dtype("auto", 10) == host.weight_dtype("auto", 10, text_encoder=True) == torch.float32
    monkeypatch.delitem(sys.modules, "folder_paths")
    with host.running_on("cpu"):
        assert host.weight_dtype("auto", 10) == torch.float32


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_without_comfyui_the_best_device_is_taken_in_its_own_dtype(monkeypatch, kind):
    for each in devices.KINDS:
        there = SimpleNamespace(
            is_available=lambda each=each: each == kind,
            device_count=lambda each=each: int(each == kind),
            get_device_properties=lambda device: SimpleNamespace(major=9, name="card", has_fp16=True),
        )
        monkeypatch.setattr(torch, each, there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
    assert host.device() == torch.device(kind)
    assert host.weight_dtype("auto", 10) == host.weight_dtype("auto", 10, text_encoder=True) == torch.float16
    with host.running_on("cpu") as chosen:
        assert host.device() == chosen == torch.device("cpu")
        assert host.weight_dtype("auto", 10) == torch.float32
    with pytest.raises(ValueError, match="'cuda:7'"), host.running_on("cuda:7"):
        pass


# ---- hosts that lack something ----


def test_a_complete_host_is_announced_in_a_line(comfyui, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "comfyui_version", SimpleNamespace(__version__="0.33.0"))
    with caplog.at_level(logging.INFO, logger="unclip"):
        host.announce()
    assert caplog.messages == ["unCLIP runs in ComfyUI 0.33.0."]


def test_what_a_host_lacks_is_said_and_done_without(comfyui, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "comfyui_version", None)
    monkeypatch.setitem(sys.modules, "latent_preview", None)
    monkeypatch.delattr(sys.modules["comfy.model_patcher"], "ModelPatcher")
    with caplog.at_level(logging.INFO, logger="unclip"):
        host.announce()
    assert caplog.messages == [
        "unCLIP runs in ComfyUI of an unknown version, without memory management and live previews, which it lacks."
    ]
    value = host.manage(a_part())
    assert value.patcher is None
    with host.loaded(value) as part, host.progress(1, "Decoder") as bar:
        assert part is value.part
        bar(a_step())
    assert [preview for *_, preview in comfyui.bars[0][1]] == [None]


def test_nothing_is_announced_without_comfyui(caplog):
    with caplog.at_level(logging.INFO, logger="unclip"):
        host.announce()
    assert not caplog.messages


# ---- progress ----


def test_steps_move_the_bar_and_images_are_previewed(comfyui):
    x0 = torch.full((2, 3, 4, 4), -1.0)
    x0[1] = 1.0
    with host.progress(3, "Decoder") as bar:
        for i in range(3):
            bar(a_step(i, x0=x0))
    [(total, calls)] = comfyui.bars
    assert total == 3
    assert [(value, of) for value, of, _ in calls] == [(1, 3), (2, 3), (3, 3)]
    kind, image, side = calls[0][2]
    assert (kind, side, image.size, image.mode) == ("JPEG", 512, (8, 4), "RGB")
    assert image.getpixel((0, 0)) == (0, 0, 0) and image.getpixel((7, 3)) == (255, 255, 255)


def test_no_preview_if_the_user_wants_none_or_there_is_no_image(comfyui):
    with host.progress(2, "Prior") as bar:
        bar(a_step(x0=torch.zeros(2, 16)))
        comfyui.args.preview_method = "none"
        bar(a_step())
    assert [preview for *_, preview in comfyui.bars[0][1]] == [None, None]


def test_embeddings_are_previewed_where_something_draws_them(comfyui):
    seen = []

    def images(x0):
        seen.append(x0.shape)
        return torch.ones(1, 3, 4, 4)

    with host.progress(2, "Prior", images) as bar:
        bar(a_step(x0=torch.zeros(2, 16)))
        comfyui.args.preview_method = "none"
        bar(a_step(x0=torch.zeros(2, 16)))
    (first, second) = [preview for *_, preview in comfyui.bars[0][1]]
    assert first[1].getpixel((0, 0)) == (255, 255, 255) and second is None
    assert seen == [(2, 16)]  # nothing is drawn that nobody sees


def test_a_preview_shows_at_most_sixteen_images():
    assert host.preview_image(torch.zeros(40, 3, 2, 2)).size == (8, 8)


@pytest.mark.parametrize(("count", "side"), [(1, 2048), (16, 512), (3, 1000)])
def test_a_preview_is_no_larger_than_the_canvas_shows(count, side):
    size = host.preview_image(torch.zeros(count, 3, side, side)).size
    assert all(256 <= edge <= 1024 for edge in size)


def test_an_interrupt_stops_at_the_next_step(comfyui):
    steps = []

    def run(rows, on_step):
        for i in range(10):
            comfyui.interrupt = i == 2
            on_step(a_step(i))
            steps.append(i)

    with pytest.raises(Interrupted):
        host.run_in_chunks(run, 1, 1, 10, "Decoder")
    assert steps == [0, 1]


def test_an_interrupt_before_the_first_step_starts_nothing(comfyui):
    comfyui.interrupt = True
    with pytest.raises(Interrupted), host.progress(1, "Decoder"):
        pytest.fail("started")


def test_without_comfyui_steps_are_counted():
    with host.progress(2, "Decoder") as bar:
        bar(a_step(0))
        bar(a_step(1))
    assert bar.done == 2


# ---- chunks, and out of memory ----


def doubled(values, sizes):
    def run(rows, on_step):
        sizes.append(len(values[rows]))
        on_step(a_step())
        return values[rows] * 2

    return run


def test_chunks_cover_all_samples_in_order():
    values, sizes = torch.arange(10.0), []
    assert torch.equal(host.run_in_chunks(doubled(values, sizes), 10, 4, 1, "x"), values * 2)
    assert sizes == [4, 4, 2]


def test_the_bar_counts_over_all_chunks(comfyui):
    host.run_in_chunks(doubled(torch.arange(10.0), []), 10, 4, 1, "x")
    [(total, calls)] = comfyui.bars
    assert total == 3 and [value for value, *_ in calls] == [1, 2, 3]


@pytest.mark.parametrize("where", ["comfyui", "alone"])
def test_out_of_memory_halves_the_chunks(where, request):
    error = OutOfMemory("full")
    if where == "comfyui":
        request.getfixturevalue("comfyui")
    else:
        error = torch.OutOfMemoryError("full")
    values, sizes = torch.arange(9.0), []
    run = doubled(values, sizes)

    def small_memory(rows, on_step):
        result = run(rows, on_step)
        if len(result) > 2:
            raise error
        return result

    assert torch.equal(host.run_in_chunks(small_memory, 9, 8, 1, "x"), values * 2)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_out_of_memory_for_a_single_sample_is_an_error():
    def never(rows, on_step):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        host.run_in_chunks(never, 4, 4, 1, "x")


@pytest.fixture
def crowded(comfyui):
    """A stage's part beside a model on its device, and one elsewhere: (the part's value, ComfyUI's two others)."""
    value = host.manage(a_part())
    places = {"stage": torch.device("cpu"), "beside": torch.device("cpu"), "elsewhere": torch.device("meta")}
    loaded = {name: SimpleNamespace(model=object(), device=place) for name, place in places.items()}
    loaded["stage"].model = value.patcher
    sys.modules["comfy.model_management"].current_loaded_models += loaded.values()
    return value, loaded["beside"], loaded["elsewhere"]


@pytest.mark.parametrize(("room", "sizes"), [(4, [4, 4]), (2, [4, 4, 2, 2])])
def test_out_of_memory_beside_other_models_unloads_them_and_then_halves(crowded, comfyui, room, sizes):
    value, beside, _ = crowded
    tried = []
    run = doubled(torch.arange(4.0), tried)

    def beside_little(rows, on_step):
        result = run(rows, on_step)
        if len(result) > room or beside not in comfyui.freed:
            raise OutOfMemory("full")
        return result

    with host.loaded(value):
        assert torch.equal(host.run_in_chunks(beside_little, 4, 4, 1, "x"), torch.arange(4.0) * 2)
    assert tried == sizes and comfyui.freed == [beside]


def test_out_of_memory_for_a_single_sample_is_an_error_only_without_other_models(crowded, comfyui):
    value, beside, elsewhere = crowded
    tried = []

    def never(rows, on_step):
        tried.append(rows)
        raise OutOfMemory("full")

    with host.loaded(value), pytest.raises(OutOfMemory):
        host.run_in_chunks(never, 1, 1, 1, "x")
    assert len(tried) == 2 and comfyui.freed == [beside]
    assert elsewhere in sys.modules["comfy.model_management"].current_loaded_models


def test_models_that_comfyui_does_not_unload_do_not_make_it_try_for_ever(crowded, comfyui, monkeypatch):
    monkeypatch.setattr(sys.modules["comfy.model_management"], "free_memory", lambda *_, **__: [])
    tried = []

    def never(rows, on_step):
        tried.append(rows.stop - rows.start)
        raise OutOfMemory("full")

    with host.loaded(crowded[0]), pytest.raises(OutOfMemory):
        host.run_in_chunks(never, 2, 2, 1, "x")
    assert tried == [2, 2, 1]


def test_another_error_passes_at_once():
    calls = []

    def broken(rows, on_step):
        calls.append(rows)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        host.run_in_chunks(broken, 4, 4, 1, "x")
    assert len(calls) == 1


# ---- words to the user ----


def test_warnings_go_beside_the_result_and_into_the_log(caplog):
    with caplog.at_level(logging.WARNING, logger="unclip"):
        told = host.with_warnings((1,), ["First.", "Second."], all_well="Fine.")
    assert told == {"ui": {"warnings": ["First.", "Second."], "notes": []}, "result": (1,)}
    assert caplog.messages == ["First.", "Second."]


def test_a_clean_run_replaces_the_last_warning_on_the_node_and_says_nothing_elsewhere(caplog):
    told = host.with_warnings((1,), [], all_well="Fine.")
    assert told == {"ui": {"warnings": [], "notes": ["Fine."]}, "result": (1,)}
    assert not caplog.messages


def test_a_text_goes_beside_the_result_with_its_warnings(caplog):
    assert host.with_text((1,), "Said.") == {"ui": {"text": ["Said."], "warnings": []}, "result": (1,)}
    with caplog.at_level(logging.WARNING, logger="unclip"):
        assert host.with_text((1,), "w\nSaid.", ["w"])["ui"] == {"text": ["w\nSaid."], "warnings": ["w"]}
    assert caplog.messages == ["w"]


def joined(runs):
    """The `ui` of a node's runs over a list, as ComfyUI's execution.get_output_from_returns joins it."""
    shown = [run["ui"] for run in runs]
    return {key: [entry for each in shown for entry in each[key]] for key in shown[0]}


@pytest.mark.parametrize("warned", [(True, False), (False, True)])
def test_runs_over_a_list_are_joined_with_all_of_their_warnings(warned):
    warnings = [["Mind."] if each else [] for each in warned]
    told = joined([host.with_warnings((1,), each, all_well="Fine.") for each in warnings])
    assert told == {"warnings": ["Mind."], "notes": ["Fine."]}
    told = joined([host.with_text((1,), "Said.", each) for each in warnings])
    assert told == {"text": ["Said."] * 2, "warnings": ["Mind."]}


def test_no_text_goes_by_broadcast():
    """ComfyUI sends a broadcast without a client to every open canvas, onto whatever node has that number there."""
    sources = "\n".join(file.read_text(encoding="utf-8") for file in Path(host.__file__).parents[1].rglob("*.py"))
    assert "send_progress_text" not in sources and "send_sync" not in sources


def test_comfyui_finds_the_patcher_by_its_name():
    """ComfyUI's memory tracker and RAM cache look for the attribute `patcher` on what a node hands out."""
    assert PartValue(a_part(), "patcher").patcher == "patcher"
