"""Embedding Pad and Pick: what they hand on, and what they refuse in words."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import host
from unclip.nodes.inputs import InputError
from unclip.nodes.pad import UnclipEmbeddingPad
from unclip.nodes.pick import UnclipPick
from unclip.nodes.sockets import EmbeddingValue, FamilyError
from unclip.nodes.thumbnails import data_url
from unclip.unclip_core.embedding.arithmetic import blend, slerp


def rows(count, seed=1):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def value(count=1, seed=1, family="test", **more):
    return EmbeddingValue(rows(count, seed), family, "prior", **more)


A, B, C, D = (value(seed=seed) for seed in (1, 2, 3, 4))


def pad(*values, **widgets):
    return UnclipEmbeddingPad().run(*values, **widgets)["result"][0].embeds


# ---- Embedding Pad ----


def test_halfway_between_two_is_halfway_on_the_arc():
    torch.testing.assert_close(pad(A, B), slerp(A.embeds, B.embeds, 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(pad(A, B, x=0.0), A.embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(pad(A, B, x=1.0, y=0.0), B.embeds, rtol=0, atol=1e-5)


def test_four_are_mixed_as_a_blend_by_the_bilinear_weights():
    x, y = 0.2, 0.9
    weights = [0.8 * 0.1, 0.2 * 0.1, 0.8 * 0.9, 0.2 * 0.9]
    expected = blend([each.embeds for each in (A, B, C, D)], weights)
    torch.testing.assert_close(pad(A, B, x=x, y=y, embedding_3=C, embedding_4=D), expected, rtol=0, atol=1e-6)
    lengths = torch.stack([each.embeds.norm() for each in (A, B, C, D)])
    assert expected.norm().item() == pytest.approx((lengths * torch.tensor(weights)).sum().item(), rel=1e-5)


def test_the_fourth_alone_takes_the_third_place():
    assert torch.equal(pad(A, B, x=0.5, y=1.0, embedding_4=D), pad(A, B, x=0.5, y=1.0, embedding_3=D))
    torch.testing.assert_close(pad(A, B, x=0.5, y=1.0, embedding_4=D), D.embeds, rtol=0, atol=1e-5)


def test_the_node_says_the_weights():
    assert UnclipEmbeddingPad().run(A, B, 0.25)["ui"]["text"] == ["1: 0.75  2: 0.25"]


def test_a_batch_beside_single_ones_is_mixed_row_by_row():
    batch = value(3, seed=9)
    found = pad(A, batch, x=0.3)
    assert found.shape == (3, 16)
    torch.testing.assert_close(found[2:], pad(A, EmbeddingValue(batch.embeds[2:], "test", "x"), x=0.3))


@pytest.mark.parametrize(("widget", "bad"), [("x", -0.1), ("y", 1.5), ("x", float("nan")), ("y", "0")])
def test_a_point_outside_is_refused(widget, bad):
    with pytest.raises(InputError, match=f"'{widget}'"):
        pad(A, B, **{widget: bad})
    assert f"'{widget}'" in UnclipEmbeddingPad.VALIDATE_INPUTS(**{"x": 0.5, "y": 0.5, widget: bad})


def test_two_families_are_not_mixed():
    with pytest.raises(FamilyError, match="embedding_3.*'another'"):
        pad(A, B, embedding_3=value(family="another"))


# ---- Pick ----


def pick(indices, **linked):
    return UnclipPick().run(indices, **linked)["result"]


def test_images_and_embeddings_are_picked_side_by_side_in_the_order_of_the_text():
    images, four = torch.rand(4, 8, 8, 3), value(4, prompts=("a", "b", "c", "d"), seed=5)
    image, embedding = pick(" 2, 0", image=images, embedding=four)
    assert torch.equal(image, images[[2, 0]]) and torch.equal(embedding.embeds, four.embeds[[2, 0]])
    assert (embedding.prompts, embedding.family, embedding.source) == (("c", "a"), "test", "prior")


def test_one_kind_alone_leaves_the_other_output_empty():
    assert pick("1", image=torch.rand(2, 8, 8, 3))[1] is None
    image, embedding = pick("1", embedding=value(2, prompts=("of both",)))
    assert image is None and embedding.prompts == ("of both",)


@pytest.mark.parametrize("text", ["", ",", "0,", "-1", "a", "0 1", "1.5", "²", "9" * 30, None, 0])
def test_what_is_no_list_of_numbers_is_refused(text):
    with pytest.raises(InputError, match="'indices' must be numbers"):
        pick(text, image=torch.rand(2, 8, 8, 3))
    assert "'indices' must be" in str(UnclipPick.VALIDATE_INPUTS(text)) or text is None  # None: linked


def test_a_number_beyond_the_candidates_is_refused():
    with pytest.raises(InputError, match="asks for candidate 4; there are 4, from 0 to 3"):
        pick("0, 4", image=torch.rand(4, 8, 8, 3))


def test_candidates_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="'image' holds 2 candidates and 'embedding' 3"):
        pick("0", image=torch.rand(2, 8, 8, 3), embedding=value(3))
    with pytest.raises(InputError, match="nothing to pick from"):
        pick("0")


def test_the_canvas_gets_a_picture_and_a_label_of_each(monkeypatch):
    images = torch.zeros(2, 200, 100, 3)
    images[1, ..., 0] = 1
    told = {"image": images, "embedding": value(2, prompts=("black", "red"))}
    assert UnclipPick().run("0", **told)["ui"] == {}  # nobody looks, outside ComfyUI
    monkeypatch.setattr(host, "in_comfyui", lambda: True)
    black, red = UnclipPick().run("0", **told)["ui"]["candidates"]
    assert (black["label"], red["label"]) == ("black", "red")
    with Image.open(io.BytesIO(base64.b64decode(red["picture"].split(",")[1]))) as picture:
        assert picture.size == (64, 128) and np.asarray(picture)[64, 32].tolist() == pytest.approx([254, 0, 0], abs=3)
    alone = UnclipPick().run("0", embedding=value(2, prompts=("one",)))["ui"]["candidates"]
    assert alone == [{"picture": "", "label": ""}] * 2


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_channels_have_a_thumbnail(channels):
    with Image.open(io.BytesIO(base64.b64decode(data_url(torch.ones(4, 4, channels)).split(",")[1]))) as picture:
        assert picture.mode == "RGB" and picture.getpixel((1, 1)) == (255, 255, 255)


# ---- partial execution ----


@pytest.mark.parametrize("name", ["UnclipPick", "UnclipRerank", "UnclipEmbeddingSimilarity", "UnclipDescribe"])
def test_what_one_looks_at_is_an_output(name):
    """ComfyUI runs a part of a workflow from its outputs only."""
    assert NODE_CLASS_MAPPINGS[name].OUTPUT_NODE
