"""Workflows over POST /prompt: to the end, with the images that they promise, cached, interrupted, fed by upload."""

import copy
import json
import math
import os
import shutil
import time

import numpy as np
import pytest
from comfy_server import ROOT
from PIL import Image

from unclip.cli.headless.run import run_workflow

pytestmark = pytest.mark.comfyui

API = ROOT / "workflows" / "api"
NAMES = sorted(path.stem for path in API.glob("*.json"))
SHORT = {"width": 96, "height": 128}  # in place of 768 px, of which a small random Kandinsky makes no more
# Sizes of the images that each workflow saves: decoder 64 px, Upscale x 4, the grid's columns and rows.
SIZES = {
    "text_to_image": [(256, 256)],
    "text_to_image_1024": [(1024, 1024)],
    "text_to_image_candidates": [(512, 512)],
    "interpolate_prompts": [(1024, 512)],
    "interpolate_grid": [(768, 768)],
    "interpolate_pictures": [(1024, 512)],
    "embedding_pad": [(256, 256)],
    "variations": [(1024, 768)],
    "blend": [(512, 512)],
    "text_diff": [(768, 256)],
    "text_diff_frames": [(1024, 512)],
    "rerank_scores": [(512, 512)],
    "pca": [(1024, 512)],
    "describe": [(512, 256)],
    "similarity": [(556, 532)],
    "ddim_inversion": [(768, 256)],
    "inpaint": [(256, 256)],
    "outpaint": [(512, 256)],
    "forward_diffusion": [(512, 82), (640, 400)],  # eight frames under their names, and the plot
    "denoising_film": [(640, 146)],  # every other of sixteen steps, the last and the end
    "clip_guidance": [(1024, 768)],
    "clip_optimise": [(128, 128)],
    "karlo_text_to_image": [(64, 64)],  # of the small random Karlo that stands for the real one
    "karlo_image_variations": [(128, 128)],
    "eclipse_karlo": [(64, 64)],
    "kandinsky_text_to_image": [(SHORT["width"], SHORT["height"])],
    "kandinsky_blend": [(SHORT["width"], SHORT["height"])],
    "kandinsky_image_variations": [(128, 128)],
    "kandinsky_inpaint": [(256, 256)],
    "kandinsky_depth": [(SHORT["width"], SHORT["height"])],
    "eclipse_kandinsky": [(SHORT["width"], SHORT["height"])],
}
OF_SHAPES = {
    "interpolate_prompts", "interpolate_grid", "interpolate_pictures", "variations", "text_diff_frames",
    "rerank_scores", "describe",
}  # fmt: skip  # draw six images and more, or read a thousand captions: with the faster of the bundled models
NOT_RUN = {
    "karlo_to_sd21_unclip", "kandinsky_to_sdxl_revision", "sdxl_revision_blend", "stable_cascade_blend"
}  # fmt: skip  # need stock models; test_comfyui_bridge.py and test_comfyui_stock_workflows.py run them
PROMPT = "a large red circle in the center on a white background"
STOP_LIMIT = 10  # seconds from an interrupt to its event; a step of the sampling takes far less


def api(name):
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def shapes(name):
    """A bundled workflow with the model of shapes, which is the faster one."""
    return with_inputs(api(name), "UnclipLoadModel", model="bundled (shapes)")


def with_inputs(prompt, class_type, **inputs):
    """The prompt with these inputs set in every node of a class."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if node["class_type"] == class_type:
            node["inputs"] |= inputs
    return changed


def saved(prompt):
    """The prompt with its previews saved."""
    changed = copy.deepcopy(prompt)
    for key in ids(changed, "PreviewImage"):
        changed[key] |= {"class_type": "SaveImage", "inputs": changed[key]["inputs"] | {"filename_prefix": ""}}
    return changed


def ids(prompt, class_type):
    return [key for key, node in prompt.items() if node["class_type"] == class_type]


def quick(**decoder):
    """Text to images of 64 px in few steps, with these inputs of the decoder."""
    changed = with_inputs(shapes("text_to_image"), "UnclipTextEncode", text=PROMPT)
    changed = with_inputs(changed, "UnclipPriorSample", steps=2, candidates=1, keep=1)
    changed = with_inputs(changed, "UnclipDecoderSample", **{"steps": 2} | decoder)
    changed = with_inputs(changed, "SaveImage", images=[ids(changed, "UnclipDecoderSample")[0], 0])
    return without(changed, "UnclipRerank", "UnclipUpscale")


def without(prompt, *class_types):
    return {key: node for key, node in prompt.items() if node["class_type"] not in class_types}


def unwrapped(value):
    """A list that is a value stands in an object of its own, so as not to be taken for a link; ComfyUI takes it out."""
    return value["__value__"] if isinstance(value, dict) and "__value__" in value else value


def levels(image):
    return np.asarray(image.convert("RGB"), dtype=np.float32)


def drawing():
    """An image to load: a red disc on white, larger than any model's input and not square."""
    y, x = np.mgrid[:120, :160]
    inside = (x - 80) ** 2 + (y - 60) ** 2 < 40**2
    return Image.fromarray(np.where(inside[..., None], [220, 30, 30], [255, 255, 255]).astype(np.uint8))


def test_every_workflow_has_its_expected_images():
    assert set(NAMES) == set(SIZES) | NOT_RUN


@pytest.mark.parametrize("name", SIZES)
def test_a_workflow_draws_in_comfyui_what_it_draws_headless(server, name, tmp_path, monkeypatch):
    monkeypatch.setenv("UNCLIP_MODELS", str(server.base / "models" / "unclip"))
    workflow = shapes(name) if name in OF_SHAPES else api(name)
    prompt = with_inputs(saved(workflow), "SaveImage", filename_prefix=f"run/{name}")  # new to the cache
    as_they_are = name in ("text_to_image", "denoising_film")  # the former shows "auto", the latter a film of all steps
    for node in () if as_they_are else prompt.values():
        optimises = node["class_type"] == "UnclipClipOptimise"
        node["inputs"] |= {"steps": 10 if optimises else 2} if "steps" in node["inputs"] else {}
        if name.startswith(("kandinsky", "eclipse")):
            node["inputs"] |= SHORT if node["inputs"].get("width") else {}
    if name == "kandinsky_blend":  # of two images that are the same, ComfyUI would read one
        prompt[ids(prompt, "LoadImage")[1]]["inputs"]["image"] = "other.png"
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    work = [(prompt[key]["class_type"], prompt[key]["inputs"]) for key in set(run.executed) | run.cached]
    # Of two nodes that are the same, ComfyUI may run one and say nothing of the other.
    assert all((node["class_type"], node["inputs"]) in work for node in prompt.values())
    assert ids(prompt, "SaveImage")[0] in run.executed

    row = server.history(run.prompt_id)
    assert row["status"]["status_str"] == "success" and row["status"]["completed"]
    images = server.images(run.prompt_id)
    assert [image.size for image in images] == SIZES[name]
    carried = json.loads(images[0].text["prompt"])
    assert {key: node["inputs"] for key, node in carried.items()} == {
        key: {name: unwrapped(value) for name, value in node["inputs"].items()} for key, node in prompt.items()
    }

    report = run_workflow(prompt, output_dir=tmp_path, input_dirs=(server.base / "input",))
    assert report.status == "ok", report.errors
    drawn = [file for file in report.outputs if file.path.suffix == ".png"]
    by_node = sorted(drawn, key=lambda file: int(file.node))
    for ours, file in zip(images, by_node, strict=True):
        # The two differ in their torch, so in the last bits of every step.
        assert np.abs(levels(ours) - levels(Image.open(file.path))).mean() < 2


def test_the_same_prompt_again_executes_nothing(server):
    prompt = with_inputs(quick(), "SaveImage", filename_prefix="again")
    first, second = server.run(prompt), server.run(prompt)
    assert first.ending == second.ending == "execution_success"
    assert ids(prompt, "SaveImage")[0] in first.executed
    assert second.executed == [] and second.cached == set(prompt)


def test_another_decoder_seed_executes_the_decoder_only(server):
    server.run(quick(seed=1))
    run = server.run(prompt := quick(seed=2))
    assert sorted(run.executed) == sorted(ids(prompt, "UnclipDecoderSample") + ids(prompt, "SaveImage"))
    assert run.cached == set(prompt) - set(run.executed)  # CLIP and prior among them


def test_a_model_that_changes_on_disk_is_read_again(server):
    folder = server.base / "models" / "unclip" / "changing"
    shutil.copytree(ROOT / "unclip_core" / "bundled" / "shapes", folder)
    prompt = with_inputs(quick(), "UnclipLoadModel", model="changing")
    try:
        server.run(prompt)
        assert server.run(prompt).executed == []
        later = time.time() + 10
        os.utime(folder / "prior.safetensors", (later, later))
        run = server.run(prompt)
        assert run.ending == "execution_success" and set(run.executed) == set(prompt) and not run.cached
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_each_dtype_draws(server, dtype):
    prompt = with_inputs(quick(), "UnclipLoadModel", dtype=dtype)
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    assert [image.size for image in server.images(run.prompt_id)] == [(64, 64)]


def sampling(seed):
    """A prompt whose prior, decoder and upsampler all have to run, and what each previews: its size in px."""
    prompt = with_inputs(shapes("text_to_image"), "UnclipTextEncode", text=PROMPT)
    prompt = with_inputs(prompt, "UnclipPriorSample", seed=seed, steps=3, candidates=1, keep=1)
    prompt = with_inputs(prompt, "UnclipDecoderSample", seed=seed, steps=4)
    prompt = with_inputs(prompt, "UnclipUpscale", seed=seed, steps=2)
    sides = {"UnclipPriorSample": 64, "UnclipDecoderSample": 64, "UnclipUpscale": 256}
    return prompt, {ids(prompt, name)[0]: side for name, side in sides.items()}


def test_every_stage_shows_its_steps_and_a_live_image(server):
    prompt, sides = sampling(seed=11)
    run = server.run(prompt, preview_method="auto")
    assert run.ending == "execution_success", run.details
    prior, *_ = sides
    for node_id, steps in zip(sides, (3, 4, 2), strict=True):
        assert run.steps[node_id][-1] == (steps, steps)
        if node_id == prior:  # its images are drawn by the decoder, and may take a fifth of so short a run: often none
            assert len(run.previews.get(prior, [])) <= steps
            continue
        assert len(run.previews[node_id]) == steps
        # The server enlarges a preview to what the canvas shows, and keeps its shape.
        assert all(image.size == (512, 512) for image in run.previews[node_id])
    assert set(run.previews) | {prior} == set(sides)


def test_no_image_is_sent_where_previews_are_off_and_none_of_a_prior_alone(server):
    prompt, sides = sampling(seed=12)
    run = server.run(prompt, preview_method="none")
    assert run.ending == "execution_success" and run.previews == {} and set(run.steps) >= set(sides)
    prompt, sides = sampling(seed=13)
    (prior,) = ids(prompt, "UnclipPriorSample")
    prompt[prior]["inputs"].pop("decoder")
    run = server.run(prompt, preview_method="auto")
    assert run.ending == "execution_success" and prior not in run.previews and len(run.previews) == 2


def test_the_largest_seed_and_full_batches_work(server):
    prompt = quick(seed=2**64 - 1, batch_size=3)
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    assert [image.size for image in server.images(run.prompt_id)] == [(64, 64)] * 3


def test_an_uploaded_image_goes_through_clip_and_decoder(server):
    server.upload("disc.png", drawing())
    prompt = quick(batch_size=2)
    (loader,), (decoder,) = ids(prompt, "UnclipLoadModel"), ids(prompt, "UnclipDecoderSample")
    prompt = without(prompt, "UnclipPriorSample", "UnclipTextEncode")
    prompt["20"] = {"class_type": "LoadImage", "inputs": {"image": "disc.png"}}
    prompt["21"] = {"class_type": "UnclipImageEncode", "inputs": {"clip": [loader, 0], "image": ["20", 0]}}
    prompt[decoder]["inputs"]["embedding"] = ["21", 0]
    prompt[decoder]["inputs"].pop("text", None)
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    assert {"20", "21", decoder} <= set(run.executed)
    assert [image.size for image in server.images(run.prompt_id)] == [(64, 64)] * 2


def test_unknown_words_are_named_and_the_image_comes_all_the_same(server):
    prompt = with_inputs(quick(), "UnclipTextEncode", text="a large red zebra in the center of Paris")
    (node_id,) = ids(prompt, "UnclipTextEncode")
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    said = "\n".join(run.outputs[node_id]["warnings"])
    assert "'zebra'" in said and "'paris'" in said and "'red'" not in said
    assert len(server.images(run.prompt_id)) == 1

    again = server.run(with_inputs(prompt, "UnclipDecoderSample", seed=99))
    assert node_id in again.cached and node_id not in again.executed
    assert "'zebra'" in "".join(server.history(again.prompt_id)["outputs"][node_id]["warnings"])

    well = server.run(with_inputs(prompt, "UnclipTextEncode", text=PROMPT))
    assert well.outputs[node_id]["notes"] == ["The model reads the whole prompt."]  # in the warning's place
    assert well.outputs[node_id]["warnings"] == []
    assert not (run.texts or again.texts or well.texts)  # none by broadcast


@pytest.mark.parametrize("texts", [("a red circle", "a red zebra"), ("a blue zebra", "a blue circle")])
def test_a_list_of_prompts_is_run_one_by_one_and_what_is_said_of_each_is_kept(server, texts):
    prompt = quick()
    (node_id,) = ids(prompt, "UnclipTextEncode")
    for i, text in enumerate(texts):
        prompt[f"{50 + i}"] = {"class_type": "PrimitiveString", "inputs": {"value": text}}
    entries = {f"inputs.input{i}": [f"{50 + i}", 0] for i in range(len(texts))}
    prompt["60"] = {"class_type": "CreateList", "inputs": entries}
    prompt[node_id]["inputs"]["text"] = ["60", 0]
    run = server.run(prompt)
    assert run.ending == "execution_success", run.details
    (warning,) = run.outputs[node_id]["warnings"]
    assert "'zebra'" in warning and len(run.outputs[node_id]["notes"]) == 1
    assert len(server.images(run.prompt_id)) == len(texts)


@pytest.mark.parametrize("stage", ["UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale"])
def test_an_interrupt_stops_the_sampling_within_a_step_and_the_next_prompt_runs(server, stage):
    prompt = with_inputs(sampling(seed=21)[0], stage, steps=1000)
    (node_id,) = ids(prompt, stage)
    with server.watch() as watch:
        prompt_id = watch.queue(prompt)
        events, seen = watch.events(prompt_id), {}
        for kind, data in events:
            assert not kind.startswith("execution_error") and kind != "execution_success", data
            if kind == "progress" and data["node"] == node_id:
                assert data["max"] == 1000
                seen[data["value"]] = asked = time.monotonic()
                if max(seen) - min(seen) >= 6:  # the server leaves some out when they come fast
                    break
        status, _ = server.post("/interrupt", {"prompt_id": prompt_id})
        answered = time.monotonic()
        assert status == 200
        stopped = watch.follow(prompt_id, events)
        assert stopped.ending == "execution_interrupted" and stopped.details["node_id"] == node_id
        assert time.monotonic() - asked < STOP_LIMIT
        step = (asked - seen[min(seen)]) / (max(seen) - min(seen))
        under_way = math.ceil((answered - asked) / step)  # what was done before the server had the request
        last = max((value for value, _ in stopped.steps.get(node_id, [])), default=max(seen))
        assert last <= max(seen) + under_way + 1

        after = watch.follow(watch.queue(quick(seed=7)))
        assert after.ending == "execution_success", after.details
