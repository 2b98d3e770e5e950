"""Apply LoRA: what the parts compute with it, what stays as it was, and what is refused."""

import os

import pytest
import torch

from unclip.nodes import host
from unclip.nodes.clip import UnclipTextEncode
from unclip.nodes.decoder import UnclipDecoderSample
from unclip.nodes.inputs import InputError
from unclip.nodes.lora import NONE, UnclipApplyLora
from unclip.nodes.prior import UnclipPriorSample
from unclip.nodes.sockets import FamilyError, LateValue, PartValue
from unclip.unclip_core.lora.delta import apply_lora
from unclip.unclip_core.lora.files import read_lora, write_lora
from unclip.unclip_core.weights.files import CheckpointError

LAYERS = {
    "prior": ["blocks.0.to_v", "blocks.0.mlp_out"], "decoder": ["conditioner.mlp.0", "unet.middle.blocks.0.conv1"],
}  # fmt: skip


def write(path, part, stage, rank=2, seed=0, family="test"):
    """A LoRA with random factors for two layers of the stage."""
    generator, factors = torch.Generator().manual_seed(seed), {}
    for name in LAYERS[stage]:
        out, *into = part.net.get_submodule(name).weight.shape
        b = torch.randn(out, rank, *[1] * (len(into) - 1), generator=generator)
        factors[name] = torch.randn(rank, *into, generator=generator), b
    write_lora(path, factors, family=family, stage=stage, rank=rank, alpha=1.0)


@pytest.fixture
def loras(mine, tmp_path, monkeypatch):
    """A folder of LoRAs, which the node lists."""
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "prior.safetensors", mine.prior.part, "prior")
    write(tmp_path / "decoder.safetensors", mine.decoder.part, "decoder", seed=1)
    monkeypatch.setenv(host.LORA_VARIABLE, str(tmp_path))
    return tmp_path


def embed(prior, mine):
    (text,) = result(UnclipTextEncode().run(mine.clip, "a red circle"))
    return result(UnclipPriorSample().run(prior, text, seed=1, steps=2))[0]


def draw(decoder, mine):
    return result(UnclipDecoderSample().run(decoder, embed(mine.prior, mine), seed=1, steps=2))[0]


def result(returned):
    return returned["result"] if isinstance(returned, dict) else returned


def apply(*arguments, **named):
    return UnclipApplyLora().run(*arguments, **named)


def merged(value, file, strength):
    """The part with a LoRA added where its stage adds it, on the device: another one rounds the products otherwise."""
    with host.loaded(value) as part:
        return PartValue(apply_lora(part, read_lora(file), strength))


def test_the_list_holds_what_lies_in_the_folders(loras):
    (loras / "notes.txt").write_text("no LoRA")
    names, options = UnclipApplyLora.INPUT_TYPES()["required"]["lora_name"]
    assert names == [NONE, "decoder.safetensors", "mine/prior.safetensors"] and options["default"] == NONE


@pytest.mark.gpu
def test_a_prior_samples_with_its_lora_and_the_original_without(mine, loras):
    plain = embed(mine.prior, mine).embeds
    prior, decoder = apply("mine/prior.safetensors", 0.3, 1.0, mine.prior, mine.decoder)
    adapted = embed(prior, mine).embeds
    own = merged(mine.prior, loras / "mine" / "prior.safetensors", 0.3)
    assert torch.equal(adapted, embed(own, mine).embeds)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    assert torch.equal(embed(mine.prior, mine).embeds, plain)
    assert decoder is mine.decoder and prior.family == "test"


@pytest.mark.gpu
def test_a_decoder_draws_with_its_lora(mine, loras):
    plain = draw(mine.decoder, mine)
    prior, decoder = apply("decoder.safetensors", 1.0, 0.5, mine.prior, mine.decoder)
    own = merged(mine.decoder, loras / "decoder.safetensors", 0.5)
    assert torch.equal(draw(decoder, mine), draw(own, mine))
    assert not torch.allclose(draw(decoder, mine), plain, atol=1e-3)
    assert torch.equal(draw(mine.decoder, mine), plain) and prior is mine.prior


def test_nothing_or_strength_nought_hands_the_parts_on(mine, loras):
    assert apply(NONE, prior=mine.prior, decoder=mine.decoder) == (mine.prior, mine.decoder)
    assert apply("mine/prior.safetensors", 0.0, 1.0, mine.prior, mine.decoder) == (mine.prior, mine.decoder)


def test_two_in_a_row_add_and_undo_each_other(mine, loras):
    once, _ = apply("mine/prior.safetensors", 0.25, 1.0, mine.prior)
    twice, _ = apply("mine/prior.safetensors", 0.25, 1.0, once)
    whole, _ = apply("mine/prior.safetensors", 0.5, 1.0, mine.prior)
    torch.testing.assert_close(embed(twice, mine).embeds, embed(whole, mine).embeds, rtol=1e-3, atol=1e-4)
    undone, _ = apply("mine/prior.safetensors", -0.25, 1.0, once)
    torch.testing.assert_close(embed(undone, mine).embeds, embed(mine.prior, mine).embeds, rtol=1e-3, atol=1e-4)


def test_a_part_that_is_read_late_is_read_and_lends_its_weights(mine, loras):
    reads = []
    late = LateValue("test", lambda: reads.append(1) or mine.prior)
    assert apply("decoder.safetensors", prior=late, decoder=mine.decoder)[0] is late and not reads
    adapted, _ = apply("mine/prior.safetensors", prior=late)
    assert reads == [1] and adapted.base is mine.prior
    own = dict(adapted.part.net.named_parameters())
    assert all(own[name] is lent for name, lent in mine.prior.part.net.named_parameters())


def test_an_output_that_nothing_is_linked_for_says_so_when_it_is_used(mine, loras):
    _, decoder = apply("mine/prior.safetensors", prior=mine.prior)
    with pytest.raises(InputError, match="This decoder comes from Apply LoRA, where nothing is linked to 'decoder'"):
        draw(decoder, mine)


def test_a_file_that_changed_is_read_again(loras, mine):
    version = UnclipApplyLora.IS_CHANGED("decoder.safetensors")
    assert UnclipApplyLora.IS_CHANGED("decoder.safetensors", 0.5, 1.0) == version
    assert UnclipApplyLora.IS_CHANGED(NONE) == ""
    os.utime(loras / "decoder.safetensors", ns=(1, 1))
    assert UnclipApplyLora.IS_CHANGED("decoder.safetensors") != version


def test_what_does_not_go_together_is_refused(mine, other, loras):
    with pytest.raises(InputError, match="Nothing is linked to 'prior' or 'decoder'"):
        apply("decoder.safetensors")
    with pytest.raises(InputError, match="is a LoRA for the decoder, but nothing is linked to 'decoder'"):
        apply("decoder.safetensors", prior=mine.prior)
    with pytest.raises(InputError, match=f"no LoRA 'gone.safetensors' in the folders of .*{host.LORA_VARIABLE}"):
        apply("gone.safetensors", prior=mine.prior)
    with pytest.raises(InputError, match="'strength_prior' must be a number from -10 to 10, not nan"):
        apply("mine/prior.safetensors", float("nan"), prior=mine.prior)
    with pytest.raises(FamilyError, match="'test'.*'another'"):
        apply(NONE, prior=mine.prior, decoder=other.decoder)
    with pytest.raises(CheckpointError, match="decoder.safetensors' was trained for the model family 'test'"):
        apply("decoder.safetensors", decoder=other.decoder)


def test_the_canvas_is_told_of_a_strength_out_of_range():
    said = UnclipApplyLora.VALIDATE_INPUTS(strength_prior=11.0)
    assert said == "'strength_prior' is 11; it must lie between -10 and 10."
