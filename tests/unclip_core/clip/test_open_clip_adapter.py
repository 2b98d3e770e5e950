"""The CLIP adapter against open_clip's own functions, on a small random model."""

import subprocess
import sys
from dataclasses import replace

import open_clip
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from unclip.unclip_core.clip import adapter as clip_adapter
from unclip.unclip_core.clip.open_clip_adapter import (
    ClipConfig,
    OpenClipAdapter,
    build_open_clip,
    build_tokenizer,
    text_states,
)
from unclip.unclip_core.families.native.presets import tiny_decoder, tiny_prior, tiny_upsampler
from unclip.unclip_core.nets.decoder import DecoderNet
from unclip.unclip_core.nets.prior import PriorTransformer
from unclip.unclip_core.nets.upsampler import UpsamplerNet
from unclip.unclip_core.recipes.shapes.vocabulary import bpe_merges
from unclip.unclip_core.weights.meta_init import meta_init

WORDS = ("circle", "red", "a", "square", "on")


def small_config(normalize: bool = False, words: tuple[str, ...] = WORDS) -> ClipConfig:
    merges = bpe_merges(WORDS)
    text = {"context_length": 9, "vocab_size": 512 + len(merges.splitlines()) + 2, "layers": 2, "width": 32, "heads": 2}
    vision = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 16}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    return ClipConfig(model=model, merges=merges, words=words, normalize=normalize)


@pytest.fixture(scope="module")
def adapter() -> OpenClipAdapter:
    torch.manual_seed(0)
    return OpenClipAdapter(build_open_clip(small_config()), small_config())


def test_text_embedding_is_open_clips(adapter):
    prompts = ["a red circle", "", "square on a red square on a circle on a red"]
    condition = adapter.encode_text(prompts)
    expected = adapter.model.encode_text(adapter.tokenize(prompts))
    torch.testing.assert_close(condition.embeds, expected, rtol=0, atol=1e-6)


def test_states_end_in_the_embedding(adapter):
    condition = adapter.encode_text(["a red circle"])
    at_end = condition.states[0, condition.mask[0].sum() - 1]
    torch.testing.assert_close(at_end @ adapter.model.text_projection, condition.embeds[0], rtol=0, atol=1e-6)


def test_what_follows_the_end_has_no_effect(adapter):
    ids = adapter.tokenize(["a red circle"])
    torch.testing.assert_close(text_states(adapter.model, ids)[1], text_states(adapter.model, ids[:, :5])[1])


@pytest.mark.parametrize("normalize", [False, True])
def test_texts_embedded_alone_are_those_of_the_whole_context(adapter, normalize, monkeypatch):
    monkeypatch.setattr(clip_adapter, "TEXTS_AT_ONCE", 2)  # groups of one length, and back into their order
    read, unit = [], OpenClipAdapter(adapter.model, small_config(normalize))
    forward = unit.read_tokens
    monkeypatch.setattr(unit, "read_tokens", lambda ids: read.append(tuple(ids.shape)) or forward(ids))
    prompts = ["a red circle", "", "square on a red square on a circle on a red", "red", "a red square"]
    embeds = unit.embed_text(prompts)
    assert read == [(2, 3), (2, 5), (1, 9)]
    expected, many = unit.encode_text(prompts), unit.encode_texts(prompts)
    for found in (embeds, many.embeds):
        torch.testing.assert_close(found, expected.embeds, rtol=0, atol=1e-6)
    assert torch.equal(many.mask, expected.mask)
    torch.testing.assert_close(many.states, expected.states * expected.mask[..., None], rtol=0, atol=5e-6)


def test_mask_counts_start_words_and_end(adapter):
    mask = adapter.encode_text(["", "a red circle", "a " * 30]).mask
    assert mask.sum(dim=1).tolist() == [2, 5, 9]


def test_null_is_the_empty_prompt(adapter):
    condition = adapter.encode_text(["a red circle", "red"])
    torch.testing.assert_close(condition.null.embeds, adapter.encode_text([""]).embeds)
    assert condition.null.states.shape[0] == 1


def test_every_word_of_the_list_is_one_token(adapter):
    assert adapter.token_counts(["circle", "a red square on a circle"]) == [3, 8]


def test_unknown_words_are_named_once_and_in_order(adapter):
    assert adapter.unknown_words("A red Zebra on a zebra, 2 circles") == ["zebra", "2", "circles"]


def test_an_open_vocabulary_knows_everything():
    config = small_config(words=())
    assert OpenClipAdapter(build_open_clip(config), config).unknown_words("zebra") == []


def test_truncation_is_seen(adapter):
    assert not adapter.is_truncated("a " * 7)
    assert adapter.is_truncated("a " * 8)


@pytest.mark.parametrize("size", [(32, 32), (1, 1), (40, 97), (900, 3)])
def test_images_of_any_size_are_encoded(adapter, size):
    images = torch.rand(2, *size, 3, generator=torch.Generator().manual_seed(0))
    prepare = open_clip.image_transform(32, is_train=False, mean=adapter.config.mean, std=adapter.config.std)
    levels = (images * 255).round().to(torch.uint8)
    pixels = torch.stack([prepare(Image.fromarray(image.numpy())) for image in levels])
    torch.testing.assert_close(adapter.encode_image(images), adapter.model.encode_image(pixels))


def test_preprocessing_normalises_with_the_models_own_numbers(adapter):
    grey = torch.full((1, 32, 32, 3), 128 / 255)
    expected = (128 / 255 - torch.tensor(adapter.config.mean)) / torch.tensor(adapter.config.std)
    torch.testing.assert_close(adapter.preprocess(grey)[0, :, 5, 5], expected)


def test_wide_images_are_cropped_at_the_centre(adapter):
    wide = torch.zeros(1, 32, 96, 3)
    wide[:, :, 32:64] = 1.0
    assert (adapter.preprocess(wide) > 0).all()


def test_image_embedding_is_open_clips(adapter):
    images = torch.rand(2, 32, 32, 3)
    expected = adapter.model.encode_image(adapter.preprocess(images))
    torch.testing.assert_close(adapter.encode_image(images), expected)


def test_unit_norm_where_the_family_has_it():
    torch.manual_seed(0)
    config = small_config(normalize=True)
    unit = OpenClipAdapter(build_open_clip(config), config)
    condition = unit.encode_text(["a red circle"])
    torch.testing.assert_close(condition.embeds.norm(dim=-1), torch.ones(1))
    raw = unit.model.encode_text(unit.tokenize(["a red circle"]))
    torch.testing.assert_close(condition.embeds, F.normalize(raw, dim=-1), rtol=0, atol=1e-6)


def test_config_survives_json():
    import json
    from dataclasses import asdict

    config = small_config()
    assert ClipConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_bpe_refuses_what_a_byte_vocabulary_would_split():
    with pytest.raises(ValueError, match="ASCII"):
        bpe_merges(["größe"])


def test_images_are_prepared_as_open_clip_does(adapter):
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    config = PreprocessCfg(size=32, mean=adapter.config.mean, std=adapter.config.std)
    transform = image_transform_v2(config, is_train=False)
    generator = torch.Generator().manual_seed(1)
    for height, width in [(32, 32), (32, 35), (39, 32), (33, 32), (100, 64), (17, 90), (1, 3), (201, 200)]:
        levels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
        expected = transform(Image.fromarray(levels.numpy()))
        assert torch.equal(adapter.preprocess(levels[None].float() / 255)[0], expected), (height, width)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a red circle",
        "A  RED\tcircle\n",
        "it's 12 circles, isn't it?",
        "Ünïcødé 斑马 🦓",
        "tom &amp;amp; jerry",
        "~!@#$%^*()_+",
    ],
)
def test_tokens_are_open_clips(adapter, prompt):
    reference = build_tokenizer(adapter.config)
    assert torch.equal(adapter.tokenize([prompt]), reference([prompt]))
    assert adapter.token_counts([prompt]) == [len(reference.encode(prompt)) + 2]


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_without_open_clip_the_numbers_are_open_clips(quick_gelu):
    config = small_config()
    config = replace(config, model={**config.model, "quick_gelu": quick_gelu})
    reference = build_open_clip(config).eval()
    for index, parameter in enumerate(reference.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        parameter.data += 0.1 * noise
    light = OpenClipAdapter.from_weights(reference.state_dict(), config, "test")
    assert type(light.model).__name__ == "OpenClipVit"
    assert light.model.state_dict().keys() == reference.state_dict().keys()
    ids, pixels = light.tokenize(["a red circle", "", "red"]), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        states, pooled = text_states(reference, ids)
        ours = text_states(light.model, ids)
        torch.testing.assert_close(ours[0], states, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours[1], pooled, rtol=0, atol=1e-5)
        torch.testing.assert_close(light.model.encode_image(pixels), reference.encode_image(pixels), rtol=0, atol=1e-5)
    assert light.temperature == float(reference.logit_scale.exp())


def test_what_is_no_plain_transformer_is_open_clips_to_build():
    config = small_config()
    vision = {**config.model["vision_cfg"], "patch_dropout": 0.0}
    config = replace(config, model={**config.model, "vision_cfg": vision})
    weights = build_open_clip(config).state_dict()
    assert type(OpenClipAdapter.from_weights(weights, config, "test").model).__name__ == "CLIP"


def test_the_bundled_model_is_read_without_slow_imports():
    """Each takes as long as drawing an image, or longer; the last two are what making nets can bring in."""
    code = (
        "import sys, torch; from unclip.unclip_core.families.loading import SHAPES, load_model\n"
        "model = load_model(SHAPES)\n"
        "model.prior, model.decoder, model.upsampler; clip = model.clip.adapter\n"
        "clip.encode_text(['a red circle']), clip.encode_image(torch.rand(1, 70, 50, 3))\n"
        "print(sorted({'open_clip', 'torchvision', 'timm', 'ftfy', 'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_bare_nets_have_shapes_and_no_numbers():
    with meta_init():
        nets = [PriorTransformer(tiny_prior()), DecoderNet(tiny_decoder()), UpsamplerNet(tiny_upsampler())]
    full = [PriorTransformer(tiny_prior()), DecoderNet(tiny_decoder()), UpsamplerNet(tiny_upsampler())]
    for net, other in zip(nets, full, strict=True):
        assert all(value.is_meta for value in net.state_dict().values())
        assert {key: value.shape for key, value in net.state_dict().items()} == {
            key: value.shape for key, value in other.state_dict().items()
        }
