"""What every family must do, whatever it is: the same tests for the bundled one, Karlo and a made-up one."""

import json

import made_up_family
import pytest
import torch

from unclip.unclip_core import pipelines
from unclip.unclip_core.clip.adapter import ClipAdapter
from unclip.unclip_core.families.detect import family_of, is_supported
from unclip.unclip_core.families.kandinsky22.random_decoder import small_size as small_decoder
from unclip.unclip_core.families.kandinsky22.random_decoder import write_random_decoder
from unclip.unclip_core.families.kandinsky22.random_prior import small_size as small_prior
from unclip.unclip_core.families.kandinsky22.random_prior import write_random_prior
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.families.registry import families
from unclip.unclip_core.models import PARTS, MissingPart, StageSettings
from unclip.unclip_core.pipelines import editing
from unclip.unclip_core.pipelines.arguments import text_arguments
from unclip.unclip_core.pipelines.settings import Settings
from unclip.unclip_core.weights.files import CheckpointError

FAMILIES = ("native", "karlo", "made-up", "kandinsky22")


@pytest.fixture(scope="module", autouse=True)
def known():
    with made_up_family.registered():
        yield


def kandinsky(place):
    """A decoder's folder, and beside it the prior's that its card names."""
    write_random_prior(place / "prior", small_prior())
    return write_random_decoder(place / "decoder", small_decoder(), prior="owner/prior")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    return {
        "native": SHAPES,
        "karlo": write_random_karlo(place / "karlo", small_size()),
        "made-up": made_up_family.write_folder(place / "made-up"),
        "kandinsky22": kandinsky(place),
    }


@pytest.fixture(scope="module", params=FAMILIES)
def model(folders, request):
    return load_model(folders[request.param])


def text_of(model, count=2):
    return pipelines.encode_text(model.clip, ["a red circle", "the cat"][:count])


def embeds_of(model, count=2):
    return pipelines.sample_prior(model.prior, text_of(model, count), seeds=range(count), steps=2)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_is_of_one_family_alone(folders, name):
    folder = folders[name]
    index = json.loads((folder / "model_index.json").read_text())
    assert [family.name for family in families() if family.detect(folder, index)] == [name]
    assert family_of(folder).name == name and is_supported(folder)


def test_the_parts_that_are_named_are_those_that_are_there(model):
    model.reader.check()
    for part in PARTS:
        if model.has(part):
            assert getattr(model, part).family == model.family
            assert sum(p.numel() for p in getattr(model, part).module.parameters()) > 0
        else:
            with pytest.raises(MissingPart, match=f"'{model.name}' has no '{part}'"):
                getattr(model, part)


def test_every_stage_states_how_it_is_sampled(model):
    stages = [part for part in PARTS[1:] if model.has(part)]
    assert all(isinstance(getattr(model, part).settings, StageSettings) for part in stages)
    told = StageSettings(3, 1.5, "ddim")
    assert told.over(None, 2.0, None) == StageSettings(3, 2.0, "ddim") and told.over() == told


@pytest.mark.parametrize("odd", [{"steps": 0}, {"steps": 2.0}, {"guidance_scale": float("nan")}, {"sampler": "x"}])
def test_settings_that_are_none_are_refused(odd):
    with pytest.raises(ValueError, match=next(iter(odd)) if "sampler" not in odd else "no sampler 'x'"):
        StageSettings(**({"steps": 3} | odd))


def test_clip_reads_texts_and_images_into_one_space(model):
    adapter = model.clip.adapter
    assert isinstance(adapter, ClipAdapter) and adapter.has_text and adapter.has_vision
    text = adapter.encode_text(["a red circle", ""])
    assert text.embeds.shape == (2, adapter.embed_dim) and text.states.shape[2] == adapter.text_width
    torch.testing.assert_close(text.embeds[1:], text.null.embeds)
    images = torch.rand(2, 20, 30, 3, generator=torch.Generator().manual_seed(0))
    seen = adapter.encode_image(images)
    assert seen.shape == text.embeds.shape
    pixels = torch.full((1, 3, adapter.image_size, adapter.image_size), 128 / 255)
    flat = torch.full((1, 50, 50, 3), 128 / 255)
    torch.testing.assert_close(adapter.encode_pixels(pixels), adapter.encode_image(flat), rtol=1e-4, atol=1e-5)
    if adapter.normalize:
        torch.testing.assert_close(seen.norm(dim=1), torch.ones(2))


def test_a_priors_candidate_depends_on_its_seed_and_number_alone(model):
    text = text_of(model)
    both = pipelines.sample_prior(model.prior, text, seeds=[3, 4], steps=2, candidates=2)
    alone = pipelines.sample_prior(model.prior, text.select([1]), seeds=[4], steps=2, candidates=2)
    assert both.shape == (4, model.clip.adapter.embed_dim) and both.dtype == torch.float32
    torch.testing.assert_close(both[2:], alone, rtol=1e-4, atol=1e-5)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_the_codec_keeps_what_it_can_tell_apart(model):
    codec = model.decoder.codec
    channels, side, _ = model.decoder.latent_shape
    assert channels == codec.channels and side * codec.factor == model.decoder.image_size
    latents = torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(1))
    images = codec.decode(latents)
    assert images.shape == (2, 3, model.decoder.image_size, model.decoder.image_size)
    again = codec.encode(images)
    if codec.module is None:  # one with random weights is no inverse of itself
        torch.testing.assert_close(again, latents, rtol=1e-4, atol=1e-4)
    assert again.shape == latents.shape
    assert codec.preview(latents).ndim == 4 and codec.preview(latents).shape[1] == 3


def test_the_conditioner_tells_embeddings_apart_and_drops_them(model):
    decoder = model.decoder
    text = text_of(model)
    said = text_arguments(text) if decoder.net.needs_text else {}
    one = decoder.net.condition(embeds_of(model), **said)
    assert one["embed"].shape == (2, decoder.net.unet.params.time_embed_dim)
    assert (one["embed"][0] - one["embed"][1]).abs().max() > 1e-4
    assert ("context" in one) == (decoder.net.params.conditioner.context_width is not None)
    null = text_arguments(text.null) if decoder.net.needs_text else {}
    blank = decoder.net.null_condition(1, **null)
    drop = torch.tensor([True, True])
    rows = {name: value.repeat_interleave(2, 0) for name, value in null.items()}
    dropped = decoder.net.condition(embeds_of(model), **rows, drop_image=drop)
    for name, value in blank.items():
        if value.is_floating_point():
            torch.testing.assert_close(dropped[name], value.expand_as(dropped[name]), rtol=1e-5, atol=1e-6)


def test_an_image_depends_on_its_embedding_and_seed_alone(model):
    embeds = embeds_of(model)
    settings = {"text": text_of(model), "steps": 2}
    both = pipelines.sample_decoder(model.decoder, embeds, seeds=[5, 6], **settings)
    side = model.decoder.image_size
    assert both.shape == (2, side, side, 3) and 0 <= float(both.min()) <= float(both.max()) <= 1
    settings["text"] = settings["text"].select([1])
    alone = pipelines.sample_decoder(model.decoder, embeds[1:], seeds=[6], **settings)
    torch.testing.assert_close(both[1:], alone, rtol=1e-3, atol=1e-3)


def test_left_to_itself_a_stage_takes_the_models_own_settings(model):
    embeds, own, text = embeds_of(model, 1), model.decoder.settings, text_of(model, 1)
    if own.steps > 10:
        own = own.over(steps=3)
    given = pipelines.sample_decoder(
        model.decoder, embeds, seeds=[1], text=text, steps=own.steps, guidance_scale=own.guidance_scale,
        sampler=own.sampler,
    )  # fmt: skip
    steps = own.steps if model.decoder.settings.steps > 10 else None
    torch.testing.assert_close(
        pipelines.sample_decoder(model.decoder, embeds, seeds=[1], text=text, steps=steps), given, rtol=0, atol=0
    )


def test_inpainting_keeps_what_is_known_to_the_bit(model):
    side = model.decoder.image_size
    images = torch.rand(1, side, side + side // 2, 3, generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(1, *images.shape[1:3])
    mask[:, : side // 2 + 3] = 1
    drawn = editing.inpaint_decoder(
        model.decoder, images, mask, embeds_of(model, 1), seeds=[1], text=text_of(model, 1), steps=2
    )
    assert drawn.shape == images.shape
    assert torch.equal(drawn[:, side // 2 + 3 :], images[:, side // 2 + 3 :])
    assert not torch.equal(drawn[:, : side // 2], images[:, : side // 2])


@pytest.mark.slow
def test_an_image_comes_back_from_its_noise(model):
    decoder, embeds = model.decoder, embeds_of(model, 1)
    text = text_of(model, 1)
    side = decoder.image_size
    images = pipelines.to_images(decoder.codec.decode(0.3 * torch.randn(1, *decoder.latent_shape)).clamp(-1, 1))
    kept = pipelines.to_images(decoder.codec.decode(decoder.codec.encode(images.movedim(-1, 1) * 2 - 1)))
    found = editing.invert_decoder(decoder, images, embeds, text=text, steps=40, guidance_scale=1.0)
    assert found.noise.shape == (1, *decoder.latent_shape)
    again = pipelines.sample_decoder(
        decoder, embeds, seeds=[0], text=text, steps=40, guidance_scale=1.0, sampler="ddim", start=found.noise,
        start_error=found.error,
    )  # fmt: skip
    other = pipelines.sample_decoder(
        decoder, embeds, seeds=[0], text=text, steps=40, guidance_scale=1.0, sampler="ddim"
    )
    assert again.shape == (1, side, side, 3)
    assert (again - kept).abs().mean() < (other - kept).abs().mean()


def test_text_becomes_an_image_whatever_parts_there_are(model):
    quick = StageSettings(2, 1.5, "ddim")
    stages = []
    drawing = pipelines.text_to_image(
        model, ["a red circle"], [7], Settings(quick, quick, StageSettings(1), candidates=2), stages.append
    )
    side = model.decoder.image_size
    assert drawing.small.shape == (1, side, side, 3)
    large = side * model.upsampler.scale if model.has("upsampler") else side
    assert drawing.large.shape == (1, large, large, 3)
    assert stages == ["clip", "prior", "decoder", "rerank", *(["upsampler"] if model.has("upsampler") else [])]


def test_a_one_pass_priors_numbers_are_those_of_its_net(folders):
    model = load_model(folders["made-up"])
    text = text_of(model)
    drawn = pipelines.sample_prior(model.prior, text, seeds=[1, 2], steps=99, guidance_scale=7.0)
    noise = pipelines.candidates_noise([1, 2], 1, "prior").normal((made_up_family.WIDTH,))
    torch.testing.assert_close(drawn, 0.5 * text.embeds + 0.5 * noise)
    best = pipelines.sample_prior(model.prior, text, seeds=[1, 2], candidates=8, keep=1)
    every = pipelines.sample_prior(model.prior, text, seeds=[1, 2], candidates=8).view(2, 8, -1)
    cosines = torch.nn.functional.cosine_similarity(every, text.embeds[:, None], dim=-1)
    torch.testing.assert_close(best, every[torch.arange(2), cosines.argmax(dim=1)])


def test_a_family_that_cannot_convert_or_train_says_so(folders, tmp_path):
    native, model = family_of(folders["native"]), load_model(folders["native"])
    with pytest.raises(CheckpointError, match="nothing to convert"):
        native.convert(model, tmp_path / "out", torch.float32)
    with pytest.raises(ValueError, match="Only a made-up decoder"):
        family_of(folders["made-up"]).check_trainable(load_model(folders["made-up"]), "prior", False, tmp_path)


def test_a_folder_that_the_disk_does_not_give_is_no_supported_one(folders, monkeypatch):
    def denied(self, folder, index):
        raise PermissionError(13, "Permission denied", str(folder))

    for family in families():
        monkeypatch.setattr(type(family), "detect", denied)
    assert not is_supported(folders["native"])


def test_a_folder_of_no_family_is_refused_with_what_is_supported(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(CheckpointError, match="'StableDiffusionPipeline'.*MadeUpPipeline.*UnCLIPPipeline"):
        family_of(tmp_path)
