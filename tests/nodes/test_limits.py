"""Nodes take large inputs in bounded pieces, or say the limit."""

from dataclasses import replace

import pytest
import torch
from fuzz.mutations import bounded

from unclip import NODE_CLASS_MAPPINGS
from unclip.cli.headless.stock import STOCK_NODES
from unclip.nodes import defaults
from unclip.nodes.inputs import InputError
from unclip.nodes.masks import check_mask, fit_mask
from unclip.nodes.sockets import EmbeddingValue, NoiseValue, TextValue
from unclip.unclip_core import pipelines
from unclip.unclip_core.clip.adapter import TextCondition

WIDTH = 16
MEGABYTE = 1 << 20


def run(node_id, *values, **widgets):
    node = (NODE_CLASS_MAPPINGS | STOCK_NODES)[node_id]
    with torch.inference_mode():
        returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    return returned["result"] if isinstance(returned, dict) else returned


def value(count):
    return EmbeddingValue(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1)), "test", "image")


def text(count):
    generator = torch.Generator().manual_seed(count)
    condition = TextCondition(
        torch.randn(count, WIDTH, generator=generator), torch.zeros(count, 2, 4), torch.ones(count, 2)
    )
    return TextValue(condition, "test", ("a prompt",) * count)


# ---- images ----


@pytest.mark.parametrize("node_id", ["UnclipRerank", "UnclipImageEncode"])
def test_images_that_do_not_fit_into_memory_together_are_read_in_parts(node_id, mine, monkeypatch, caplog):
    images = torch.rand(5, 16, 16, 3, generator=torch.Generator().manual_seed(3))
    words = run("UnclipTextEncode", mine.clip, "a red circle")[0]
    asked = (mine.clip, words, images, 3) if node_id == "UnclipRerank" else (mine.clip, images)
    whole, encode = run(node_id, *asked)[0], pipelines.encode_image

    def of_two(clip, images):
        if len(images) > 2:
            raise torch.OutOfMemoryError("full")
        return encode(clip, images)

    monkeypatch.setattr(pipelines, "encode_image", of_two)
    parts = run(node_id, *asked)[0]
    assert caplog.messages == [f"CLIP: out of memory, trying again with {n} at a time." for n in (3, 2)]
    torch.testing.assert_close(getattr(parts, "embeds", parts), getattr(whole, "embeds", whole), rtol=0, atol=1e-5)


# ---- prompts ----


def test_many_lines_are_read_a_few_at_a_time_with_the_same_result(mine, monkeypatch):
    lines = "\n".join(["a red circle", "a blue square", "a square", "red", "a circle"] * 2)
    whole = run("UnclipTextEncodeLines", mine.clip, lines)[0]
    sizes, adapter = [], mine.clip.part.adapter
    encode = type(adapter).encode_text

    def counted(self, prompts):
        sizes.append(len(prompts))
        return encode(self, prompts)

    monkeypatch.setattr(type(adapter), "encode_text", counted)
    monkeypatch.setattr(defaults, "PROMPTS_AT_ONCE", 4)
    parts = run("UnclipTextEncodeLines", mine.clip, lines)[0]
    assert sizes == [4, 4, 2] and parts.prompts == whole.prompts
    for name in ("embeds", "states", "mask"):
        torch.testing.assert_close(getattr(parts.condition, name), getattr(whole.condition, name), rtol=0, atol=1e-5)
    torch.testing.assert_close(parts.condition.null.embeds, whole.condition.null.embeds)


def test_too_many_lines_are_refused_with_the_limit(mine):
    with pytest.raises(InputError, match="10,000 prompts; at most 4,096"):
        run("UnclipTextEncodeLines", mine.clip, "a red circle\n" * 10_000)


# ---- embeddings ----


def test_a_batch_that_doubles_ends_at_the_limit():
    batch = value(1)
    with pytest.raises(InputError, match="32,768 embeddings; at most 16,384"):
        for _ in range(40):
            batch = run("UnclipEmbeddingBatch", embedding_1=batch, embedding_2=batch)[0]
    assert len(batch.embeds) == defaults.EMBEDDINGS_MAX


def test_transitions_of_large_batches_end_at_the_limit():
    many, another = value(65), TextValue(replace(text(1).condition, embeds=value(1).embeds), "test", ("another",))
    with pytest.raises(InputError, match="16,640 embeddings; at most 16,384"):
        run("UnclipEmbeddingInterpolate", many, value(1), 0.0, 256, 1.0)
    with pytest.raises(InputError, match="16,640 embeddings"):
        run("UnclipTextDiff", many, text(1), another, 0.3, 256)
    noise = NoiseValue(torch.randn(65, 3, 2, 2), "test")
    with pytest.raises(InputError, match="16,640 noises"):
        run("UnclipNoiseInterpolate", noise, noise, 0.0, 256, 1.0)
    assert len(run("UnclipEmbeddingInterpolate", value(64), value(1), 0.0, 256, 1.0)[0].embeds) == 64 * 256


# ---- masks ----


def test_a_large_mask_is_fitted_without_copies_of_it():
    mask = torch.zeros(1, 8192, 8192)  # 256 MB
    mask[0, 5, 7] = 0.5
    with bounded(memory=128 * MEGABYTE):
        fitted = fit_mask(mask, 64, 64)
    assert fitted.shape == (1, 64, 64) and fitted[0, 0, 0] == 0.5 and fitted.sum() == 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_none_is_found(bad):
    mask = torch.rand(2, 40, 30)
    mask[1, 39, 29] = bad
    with pytest.raises(InputError, match="NaN or infinity"):
        check_mask(mask)


@pytest.mark.parametrize(
    "mask", [torch.tensor([[-1.0, 0.5, 3.0]]), torch.tensor([[0, 1, 7]]), torch.tensor([[True, False]])]
)
def test_masks_of_any_type_are_brought_into_their_range(mask):
    found = check_mask(mask)
    assert found.dtype == torch.float32 and torch.equal(found[0], mask.float().clamp(0, 1))


def test_the_stock_masks_of_the_largest_size_take_one_mask_of_memory():
    with bounded(memory=64 * MEGABYTE):
        solid = run("SolidMask", 0.25, 16384, 16384)[0]
    assert solid.shape == (1, 16384, 16384) and solid[0, -1, -1] == 0.25
    below, laid = run("SolidMask", 1.0, 8192, 8192)[0], run("SolidMask", 0.25, 8192, 4096)[0]
    with bounded(memory=(256 + 96) * MEGABYTE):
        result = run("MaskComposite", below, laid, 8, 4097, "subtract")[0]
    assert result[0, 4096:4098, 7:9].tolist() == [[1.0, 1.0], [1.0, 0.75]] and result[0, -1, -1] == 0.75


@pytest.mark.parametrize("operation", ["multiply", "add", "subtract", "and", "or", "xor"])
def test_masks_are_combined_as_in_one_go(operation):
    generator = torch.Generator().manual_seed(3)
    below, laid = torch.rand(2, 700, 9, generator=generator), torch.rand(2, 600, 20, generator=generator)
    found = run("MaskComposite", below, laid, 3, 150, operation)[0]
    one, two = below[:, 150:, 3:].double(), laid[:, :550, :6].double()
    by_hand = {
        "multiply": one * two,
        "add": one + two,
        "subtract": one - two,
        "and": ((one > 0.5) & (two > 0.5)).double(),
        "or": ((one > 0.5) | (two > 0.5)).double(),
        "xor": ((one > 0.5) ^ (two > 0.5)).double(),
    }[operation]
    torch.testing.assert_close(found[:, 150:, 3:].double(), by_hand.clamp(0, 1), rtol=0, atol=1e-6)
    assert torch.equal(found[:, :150], below[:, :150]) and torch.equal(found[:, :, :3], below[:, :, :3])
