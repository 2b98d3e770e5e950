"""Stock CLIP and CLIP_VISION in ComfyUI's own classes, against its own encoding and against transformers.

The towers are of real widths, three layers deep, with random weights; what runs, runs in ComfyUI's Python.
"""

import json
import subprocess
from pathlib import Path

import pytest
from comfy_server import ROOT, environment

pytestmark = pytest.mark.comfyui

IN_COMFYUI = Path(__file__).with_name("stock_clip_in_comfyui.py")


@pytest.fixture(scope="module")
def told(comfyui):
    """What the script measured, by name."""
    folder, python = comfyui
    done = subprocess.run(
        [python, str(IN_COMFYUI), str(ROOT), str(folder)],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


def test_images_are_what_clip_vision_encode_says_of_them_bit_for_bit(told):
    assert told["images"] == {"center": True, "none": True}
    assert told["image_family"] == "kandinsky22" and told["image_norms_apart"] > 0.01  # raw, not of length 1


def test_the_zero_picture_is_transformers(told):
    """Its image encoder of the same weights, in float32, on zeros."""
    assert told["zero"] < 1e-5


def test_projected_texts_are_comfyuis_pooled_output(told):
    assert told["pooled"] == 0.0


def test_texts_states_and_mask_are_transformers(told):
    """As Kandinsky's own text encoder gives them: embedding, states after the last LayerNorm; of clip_g and clip_l."""
    assert told["clip_g"]["embeds"] < 1e-5 and told["clip_g"]["states"] < 1e-5
    assert told["clip_l"]["embeds"] < 1e-5 and told["clip_l"]["states"] < 1e-5
    assert told["lengths"] == [9, 9]
    assert told["families"] == ["kandinsky22", "karlo"]


def test_comfyuis_own_encoding_is_left_as_it_was(told):
    assert told["own_encoding_unchanged"]


def test_a_projection_that_the_file_lacks_is_refused(told):
    assert "The clip_l of this CLIP has no text projection" in told["refused"]


def test_weights_of_words_and_what_is_beyond_the_first_row_do_not_count(told):
    assert told["weighted"] == 0.0 and told["long"] < 1e-6
    assert "first 77 tokens only" in told["long_warning"]


def test_the_toolbox_works_on_them(told):
    assert told["tools"] == {name: "kandinsky22" for name in ("blend", "interpolate", "diff", "batch", "pca", "lines")}
    assert told["similarity"] == pytest.approx(told["similarity_expected"], abs=1e-3)
    assert told["caption"] in ("a red thing", "a blue thing") and told["reranked"] == 1


def test_embeddings_reach_sdxl_and_stable_cascade(told):
    """SDXL's pooled text is replaced by the embedding, noised at level 0; stage C takes them row by row."""
    assert told["sdxl_width"] == 2816 and told["sdxl"] < 6 * 0.0065
    assert told["cascade_shape"] == [1, 2, 768] and told["cascade"] == 0.0


def test_comfyui_counts_an_image_encoder_that_is_read_late(told):
    """Before, the patcher went on telling the text encoder's size, and the rest was loaded behind ComfyUI's back."""
    late = told["late"]
    assert late["text_alone"] == [late["text_bytes"]] * 2
    assert late["with_vision"] == [late["text_bytes"] + late["vision_bytes"]] * 2
    assert late["vision_bytes"] > 0 and late["again"] == late["with_vision"]


def test_comfyui_unloads_what_a_stage_that_runs_out_of_memory_does_not_need(told):
    assert told["crowded"] == [True] * 3 and told["alone"] == [False, True, True]
    assert told["tried"] == [2, 2]
