"""The host with and without ComfyUI. ComfyUI is a stand-in here; tests/comfyui runs the real one."""

import logging
import sys
import types
from types import SimpleNamespace

import pytest
import torch

from unclip.nodes import defaults, host
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import PartValue
from unclip.unclip_core.samplers import StepInfo


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
        bars=[], loads=[], texts=[], interrupt=False, node="7", folders={}, args=SimpleNamespace(preview_method="auto")
    )

    class ProgressBar:
        def __init__(self, total):
            self.calls = []
            seen.bars.append((total, self.calls))

        def update_absolute(self, value, total=None, preview=None):
            self.calls.append((value, total, preview))

    class Patcher:
        def __init__(self, model, load_device, offload_device):
            self.model, self.load_device, self.offload_device = model, load_device, offload_device

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

    cpu = torch.device("cpu")
    management = module(
        "comfy.model_management",
        get_torch_device=lambda: cpu,
        intermediate_device=lambda: cpu,
        unet_offload_device=lambda: cpu,
        load_models_gpu=lambda models, **how: seen.loads.append((models, how)),
        throw_exception_if_processing_interrupted=throw,
        is_oom=lambda error: isinstance(error, OutOfMemory),
        soft_empty_cache=lambda: None,
    )
    patcher = module("comfy.model_patcher", CoreModelPatcher=Patcher)
    utils = module("comfy.utils", ProgressBar=ProgressBar)
    module("comfy", model_management=management, model_patcher=patcher, utils=utils)
    module(
        "folder_paths",
        models_dir=str(tmp_path),
        add_model_folder_path=add_folder,
        get_folder_paths=lambda key: list(seen.folders[key]),
    )
    methods = SimpleNamespace(NoPreviews="none")
    module("latent_preview", args=seen.args, LatentPreviewMethod=methods)
    module("comfy_execution")
    module(
        "comfy_execution.utils",
        get_executing_context=lambda: seen.node and SimpleNamespace(node_id=seen.node),
    )
    server = SimpleNamespace(client_id="me", send_progress_text=lambda *told: seen.texts.append(told))
    module("server", PromptServer=SimpleNamespace(instance=server))
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
    monkeypatch.setenv(host.FOLDER_VARIABLE, f"{first}{host.os.pathsep}{second}")
    assert host.model_names() == [defaults.MODEL, "group/mine", "karlo", "other"]
    assert host.model_path("group/mine") == str(first / "group" / "mine")
    assert host.model_path("other") == str(second / "other")


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
    assert host.model_names() == [defaults.MODEL, "linked"]


@pytest.mark.parametrize("name", ["../secret", "gone", "", "/etc", "bundled"])
def test_a_name_that_is_not_listed_is_refused(monkeypatch, tmp_path, name):
    a_model(tmp_path, "secret")
    a_model(tmp_path, "models/mine")
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path / "models"))
    with pytest.raises(InputError, match=r"There are: bundled \(tiny\), mine"):
        host.model_path(name)


def test_the_bundled_model_is_always_there(monkeypatch):
    monkeypatch.delenv(host.FOLDER_VARIABLE, raising=False)
    assert host.model_names() == [defaults.MODEL]
    assert host.model_path(defaults.MODEL) is None


def test_in_comfyui_models_come_from_its_folders(comfyui, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    comfyui.folders["unclip"] = [str(elsewhere)]  # as extra_model_paths.yaml leaves it
    a_model(elsewhere, "a")
    a_model(tmp_path / "unclip", "b")
    assert host.model_names() == [defaults.MODEL, "a", "b"]
    assert comfyui.folders["unclip"] == [str(elsewhere), str(tmp_path / "unclip")]


# ---- devices ----


def test_without_comfyui_a_part_has_no_patcher_and_loads_as_it_is():
    part = a_part()
    value = host.manage(part)
    assert value.part is part and value.patcher is None and value.family == "tiny"
    assert host.load(value) is part
    assert next(part.module.parameters()).device.type == host.device().type


def test_in_comfyui_a_part_is_loaded_in_full_by_its_patcher(comfyui):
    part = a_part()
    value = host.manage(part)
    assert value.patcher.model is part.module
    assert host.load(value) is part
    assert comfyui.loads == [([value.patcher], {"force_full_load": True})]


# ---- progress ----


def test_steps_move_the_bar_and_pictures_are_previewed(comfyui):
    x0 = torch.full((2, 3, 4, 4), -1.0)
    x0[1] = 1.0
    with host.progress(3, "Decoder") as bar:
        for i in range(3):
            bar(a_step(i, x0=x0))
    [(total, calls)] = comfyui.bars
    assert total == 3
    assert [(value, of) for value, of, _ in calls] == [(1, 3), (2, 3), (3, 3)]
    kind, picture, side = calls[0][2]
    assert (kind, side, picture.size, picture.mode) == ("JPEG", 512, (8, 4), "RGB")
    assert picture.getpixel((0, 0)) == (0, 0, 0) and picture.getpixel((7, 3)) == (255, 255, 255)


def test_no_preview_if_the_user_wants_none_or_there_is_no_picture(comfyui):
    with host.progress(2, "Prior") as bar:
        bar(a_step(x0=torch.zeros(2, 16)))
        comfyui.args.preview_method = "none"
        bar(a_step())
    assert [preview for *_, preview in comfyui.bars[0][1]] == [None, None]


def test_a_preview_shows_at_most_sixteen_pictures():
    assert host.preview_image(torch.zeros(40, 3, 2, 2)).size == (8, 8)


def test_an_interrupt_stops_at_the_next_step(comfyui):
    steps = []

    def run(rows, on_step):
        for i in range(10):
            comfyui.interrupt = i == 2
            on_step(a_step(i))
            steps.append(i)

    with pytest.raises(Interrupted):
        host.in_turns(run, 1, 1, 10, "Decoder")
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


# ---- turns ----


def doubled(values, sizes):
    def run(rows, on_step):
        sizes.append(len(values[rows]))
        on_step(a_step())
        return values[rows] * 2

    return run


def test_turns_cover_all_samples_in_order():
    values, sizes = torch.arange(10.0), []
    assert torch.equal(host.in_turns(doubled(values, sizes), 10, 4, 1, "x"), values * 2)
    assert sizes == [4, 4, 2]


def test_the_bar_counts_over_all_turns(comfyui):
    host.in_turns(doubled(torch.arange(10.0), []), 10, 4, 1, "x")
    [(total, calls)] = comfyui.bars
    assert total == 3 and [value for value, *_ in calls] == [1, 2, 3]


@pytest.mark.parametrize("where", ["comfyui", "alone"])
def test_out_of_memory_halves_the_turns(where, request):
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

    assert torch.equal(host.in_turns(small_memory, 9, 8, 1, "x"), values * 2)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]


def test_out_of_memory_for_a_single_sample_is_an_error():
    def never(rows, on_step):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        host.in_turns(never, 4, 4, 1, "x")


def test_another_error_passes_at_once():
    calls = []

    def broken(rows, on_step):
        calls.append(rows)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        host.in_turns(broken, 4, 4, 1, "x")
    assert len(calls) == 1


# ---- words to the user ----


def test_warnings_show_on_the_running_node_and_in_the_log(comfyui, caplog):
    with caplog.at_level(logging.WARNING, logger="unclip"):
        host.notify(["First.", "Second."], all_well="Fine.")
    assert comfyui.texts == [("First.\nSecond.", "7", "me")]
    assert caplog.messages == ["First.", "Second."]


def test_a_clean_run_replaces_the_last_warning(comfyui, caplog):
    host.notify([], all_well="Fine.")
    assert comfyui.texts == [("Fine.", "7", "me")]
    assert not caplog.messages


def test_warnings_outside_a_running_node_go_to_the_log_only(comfyui, caplog):
    comfyui.node = None
    host.notify(["First."], all_well="Fine.")
    assert not comfyui.texts
    assert caplog.messages == ["First."]


def test_the_log_is_there_without_comfyui(caplog):
    host.notify(["First."], all_well="Fine.")
    assert caplog.messages == ["First."]


def test_warnings_go_beside_the_result():
    assert host.with_warnings((1,), []) == (1,)
    assert host.with_warnings((1,), ["w"]) == {"ui": {"warnings": ["w"]}, "result": (1,)}


def test_comfyui_finds_the_patcher_by_its_name():
    """ComfyUI's memory tracker and RAM cache look for the attribute `patcher` on what a node hands out."""
    assert PartValue(a_part(), "patcher").patcher == "patcher"
