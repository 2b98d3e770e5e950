"""Prior folders of Kandinsky 2.2 on the disk: what loads, what is read when, what is refused and how legibly."""

import gc
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.unclip_core.clip.tokenizer import END
from unclip.unclip_core.families.kandinsky22.prior_writer import convert_prior
from unclip.unclip_core.families.kandinsky22.random_prior import small_size, write_random_prior
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import MissingPart
from unclip.unclip_core.nets.clip_towers import TowerBlock
from unclip.unclip_core.pipelines import candidates_noise, encode_image, encode_text, sample_prior, sample_prior_pair
from unclip.unclip_core.weights.files import CheckpointError

NETS = ("prior", "text_encoder", "image_encoder")
PICTURES = torch.rand(2, 40, 50, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_prior(tmp_path_factory.mktemp("models") / "prior", small_size())


@pytest.fixture
def broken(folder, tmp_path):
    """A copy to break."""
    return shutil.copytree(folder, tmp_path / "broken")


def weights(folder, component):
    return next((folder / component).glob("*.safetensors"))


def rewrite(folder, component, change):
    tensors = load_file(weights(folder, component))
    change(tensors)
    path = weights(folder, component)
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)  # others may have mapped it


def configure(folder, component, file="config.json", **changes):
    path = folder / component / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drawn(folder, **options):
    model = load_model(folder, **options)
    text = encode_text(model.clip, ["a red cat", "!"])
    return torch.cat([sample_prior(model.prior, text, steps=3, seeds=[3, 4]), encode_image(model.clip, PICTURES)])


@pytest.fixture(scope="module")
def expected(folder):
    return drawn(folder)


def complaint(folder):
    with pytest.raises(CheckpointError) as caught:
        model = load_model(folder)
        model.reader.check()
        encode_image(model.clip, PICTURES)
        _ = model.prior
    return str(caught.value)


def test_it_has_clip_and_prior_and_says_what_it_lacks(folder):
    model = load_model(folder)
    model.reader.check()
    assert (model.family, model.reader.parts) == ("kandinsky22-16", {"clip", "prior"})
    assert model.clip.adapter.tokenizer.pad == END
    assert (model.prior.settings.steps, model.prior.settings.guidance_scale, model.prior.diffusion.clip_range) == (
        25, 4.0, 10.0,
    )  # fmt: skip
    for part in ("decoder", "upsampler"):
        with pytest.raises(MissingPart, match=f"no '{part}'"):
            getattr(model, part)


def test_the_image_encoder_is_read_when_an_image_comes_in(broken, expected):
    path = weights(broken, "image_encoder")
    whole = path.rename(path.with_suffix(".whole"))
    path.write_bytes(b"")
    model = load_model(broken)
    text = encode_text(model.clip, ["a red cat", "!"])
    drawn_now = sample_prior(model.prior, text, steps=3, seeds=[3, 4])
    torch.testing.assert_close(drawn_now, expected[:2], rtol=1e-4, atol=1e-5)
    assert model.clip.adapter.has_vision and model.clip.adapter.image_size == 32
    assert model.clip.module.vision is None
    whole.replace(path)
    torch.testing.assert_close(encode_image(model.clip, PICTURES), expected[2:], rtol=1e-4, atol=1e-5)
    assert model.clip.module.vision is not None


def test_the_late_encoder_takes_the_dtype_of_the_text_encoder(folder):
    clip = load_model(folder).clip
    clip.module.to(torch.bfloat16)
    assert encode_image(clip, PICTURES).dtype == torch.float32
    assert clip.module.vision.project.weight.dtype == torch.bfloat16


def test_an_encoder_of_halves_is_computed_in_float32_for_the_empty_picture(broken):
    reader = load_model(broken).reader
    rewrite(broken, "image_encoder", lambda t: t.update({key: value.half() for key, value in t.items()}))
    half = load_model(broken).reader.empty_picture()
    adapter = load_model(broken).clip.adapter
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, adapter.read_pixels(torch.zeros(1, 3, 32, 32))[0], rtol=1e-4, atol=1e-5)
    assert reader.family == "kandinsky22-16"


@pytest.mark.parametrize("form", ["bin", "fp16 alone", "shards", "position ids", "linked", "no processor"])
def test_every_published_form_loads(broken, tmp_path, expected, form):
    close = {"rtol": 1e-4, "atol": 1e-5}
    for name in NETS:
        path = weights(broken, name)
        tensors = load_file(path)
        if form == "bin":
            torch.save(tensors, path.with_name("pytorch_model.bin"))
            path.unlink()
        if form == "fp16 alone":
            save_file({key: value.half() for key, value in tensors.items()}, path.with_suffix(".fp16.safetensors"))
            path.unlink()
            close = {"rtol": 2e-2, "atol": 2e-2}
        if form == "shards":
            halves = {f"{path.stem}-0000{i}-of-00002.safetensors": sorted(tensors)[i::2] for i in range(2)}
            for file, keys in halves.items():
                save_file({key: tensors[key].contiguous() for key in keys}, path.with_name(file))
            index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}}
            (path.parent / f"{path.name}.index.json").write_text(json.dumps(index))
            path.unlink()
        if form == "position ids" and name != "prior":
            tower = {"text_encoder": "text_model", "image_encoder": "vision_model"}[name]
            rewrite(broken, name, lambda t: t.update({f"{tower}.embeddings.position_ids": torch.arange(17)[None]}))  # noqa: B023 - called here
        if form == "linked":
            (tmp_path / "blobs").mkdir(exist_ok=True)
            path.symlink_to(path.rename(tmp_path / "blobs" / name))
    if form == "no processor":
        index = json.loads((broken / "model_index.json").read_text())
        del index["image_processor"]
        (broken / "model_index.json").write_text(json.dumps(index))
    load_model(broken).reader.check()
    torch.testing.assert_close(drawn(broken), expected, **close)


def test_a_whole_clips_configuration_holds_the_towers(broken, expected):
    for name, part in (("text_encoder", "text_config"), ("image_encoder", "vision_config")):
        path = broken / name / "config.json"
        path.write_text(json.dumps({"model_type": "clip", part: json.loads(path.read_text())}))
    torch.testing.assert_close(drawn(broken), expected, rtol=1e-4, atol=1e-5)


def test_a_clip_std_of_zeros_is_refused(broken):
    rewrite(broken, "prior", lambda t: t["clip_std"].zero_())
    assert "'clip_std' of which 16 of 16 numbers are 0" in complaint(broken)


@pytest.mark.parametrize("component", NETS)
def test_what_does_not_fit_is_named(broken, component):
    key = sorted(load_file(weights(broken, component)))[3]
    rewrite(broken, component, lambda tensors: tensors.pop(key))
    said = complaint(broken)
    assert f"missing '{key}'" in said and component in said


@pytest.mark.parametrize(
    ("component", "file", "change", "told"),
    [
        ("prior", "config.json", {"num_layers": 10**9}, "layers must be at most 512, got 1000000000"),
        ("prior", "config.json", {"num_layers": "x"}, "num_layers: Input should be a valid integer"),
        ("prior", "config.json", {"num_attention_heads": 0}, "width must be a positive whole number, got 0"),
        ("prior", "config.json", {"embedding_dim": 8}, "token states of 16 numbers.*reads 8"),
        ("prior", "config.json", {"added_emb_type": "none"}, "added_emb_type"),
        ("text_encoder", "config.json", {"hidden_act": "relu"}, "relu"),
        ("text_encoder", "config.json", {"hidden_size": 32}, "token states of 32 numbers"),
        ("image_encoder", "config.json", {"projection_dim": 8}, "embeddings of 8 numbers.*of 16"),
        ("scheduler", "scheduler_config.json", {"_class_name": "DDPMScheduler"}, "DDPMScheduler"),
        ("scheduler", "scheduler_config.json", {"prediction_type": "epsilon"}, "prediction_type"),
        ("scheduler", "scheduler_config.json", {"clip_sample_range": 0}, "clip_range must be positive"),
    ],
)
def test_a_configuration_that_our_nets_cannot_follow(broken, component, file, change, told):
    configure(broken, component, file, **change)
    said = complaint(broken)
    assert re.search(told, said) and component in said


def test_the_empty_picture_holds_one_block_of_the_encoder_at_a_time(folder, monkeypatch):
    """A decoder's weights lie beside it: with all blocks there full size would take 3.7 GB more, in float32 7.4."""

    def held():
        blocks = [thing for thing in gc.get_objects() if type(thing) is TowerBlock]
        return sum(not block.to_q.weight.is_meta for block in blocks)

    reader, seen, forward = load_model(folder).reader, [], TowerBlock.forward
    monkeypatch.setattr(TowerBlock, "forward", lambda self, x: seen.append(held()) or forward(self, x))
    gc.collect()  # what earlier tests left goes now, not in between
    before = held()
    reader.empty_picture()
    assert seen == [before + 1] * small_size().vision.layers and held() == before


def test_a_folder_without_what_a_prior_needs(broken):
    index = json.loads((broken / "model_index.json").read_text())
    del index["text_encoder"]
    (broken / "model_index.json").write_text(json.dumps(index))
    assert "names no 'text_encoder'" in complaint(broken)


def test_without_an_image_encoder_texts_are_read_and_images_refused(tmp_path):
    model = load_model(write_random_prior(tmp_path / "text", small_size(), vision=False))
    assert encode_text(model.clip, ["a"]).embeds.shape == (1, 16)
    with pytest.raises(ValueError, match="no image encoder"):
        encode_image(model.clip, PICTURES)
    with pytest.raises(CheckpointError, match="no 'image_encoder'"):
        model.reader.empty_picture()


def test_converting_keeps_the_numbers(folder, tmp_path, expected):
    target = convert_prior(load_model(folder, conventions="diffusers"), tmp_path / "new", torch.float32)
    torch.testing.assert_close(drawn(target), expected, rtol=1e-4, atol=1e-5)


# ---- from an image, and away from a text ----


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def test_a_start_is_noised_in_the_space_that_the_net_works_in(model, monkeypatch):
    """At a strength that leaves one step, the state is that step's level of noise around the normalised embedding."""
    text, seen = encode_text(model.clip, ["a cat"]), []
    embeds = encode_image(model.clip, PICTURES[:1])
    net = type(model.prior.net)
    step = net.step
    monkeypatch.setattr(net, "step", lambda self, x, *rest, **more: seen.append(x) or step(self, x, *rest, **more))
    sample_prior(model.prior, text, seeds=[1], steps=4, guidance_scale=1.0, sampler="ddpm", start=embeds, strength=0.25)
    spec = model.prior.diffusion
    level = spec.steps(4).alpha_bar[3]
    normal = (embeds - model.prior.net.clip_mean) / model.prior.net.clip_std
    noise = (seen[0] - level.sqrt() * normal) / (1 - level).sqrt()
    expected = candidates_noise([1], 1, "prior").normal((16,))
    torch.testing.assert_close(noise.float(), expected, rtol=0, atol=2e-3)
    assert len(seen) == 1


@pytest.mark.parametrize(("strength", "taken"), [(0.01, 1), (0.3, 6), (0.29, 6), (1.0, 20)])
def test_strength_is_the_share_of_the_steps(model, strength, taken):
    text, embeds, steps = encode_text(model.clip, ["a cat"]), encode_image(model.clip, PICTURES[:1]), []
    sample_prior(
        model.prior, text, seeds=[1], steps=20, start=embeds, strength=strength, on_step=lambda info: steps.append(info)
    )
    assert len(steps) == taken


def test_a_start_serves_every_candidate(model):
    text = encode_text(model.clip, ["a cat", "red"])
    embeds = encode_image(model.clip, PICTURES)
    settings = {"steps": 4, "strength": 0.5}
    both = sample_prior(model.prior, text, seeds=[1, 2], candidates=3, start=embeds, **settings)
    alone = sample_prior(model.prior, text.select([1]), seeds=[2], candidates=3, start=embeds[1:], **settings)
    torch.testing.assert_close(both[3:], alone, rtol=1e-4, atol=1e-5)


def test_a_negative_text_leads_away_and_counts_with_guidance_only(model):
    text, away = encode_text(model.clip, ["a cat"]), encode_text(model.clip, ["red"])
    settings = {"seeds": [1], "steps": 4}
    plain = sample_prior(model.prior, text, **settings)
    led = sample_prior(model.prior, text, negative=away, **settings)
    assert (plain - led).abs().max() > 1e-3
    blank = sample_prior(model.prior, text, negative=encode_text(model.clip, [""]), **settings)
    torch.testing.assert_close(blank, plain, rtol=1e-5, atol=1e-6)
    unguided = [sample_prior(model.prior, text, guidance_scale=1.0, negative=n, **settings) for n in (None, away)]
    torch.testing.assert_close(*unguided, rtol=0, atol=0)


def test_a_pair_is_each_half_alone(model):
    text, away = encode_text(model.clip, ["a cat", "a"]), encode_text(model.clip, ["red"])
    wanted, unwanted = sample_prior_pair(model.prior, text, away, seeds=[1, 2], steps=4)
    torch.testing.assert_close(
        wanted, sample_prior(model.prior, text, negative=away, seeds=[1, 2], steps=4), rtol=1e-4, atol=1e-5
    )
    assert (unwanted[0] - unwanted[1]).abs().max() > 1e-3  # other seeds


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"start": torch.zeros(3, 16), "strength": 0.5}, "does not go with 2 texts"),
        ({"start": torch.zeros(1, 8), "strength": 0.5}, "8 numbers, this prior makes 16"),
        ({"start": torch.zeros(1, 16), "strength": 0.0}, "above 0"),
        ({"start": torch.zeros(1, 16), "strength": float("nan")}, "above 0"),
    ],
)
def test_a_start_that_does_not_fit(model, wrong, told):
    with pytest.raises(ValueError, match=told):
        sample_prior(model.prior, encode_text(model.clip, ["a", "b"]), seeds=[1, 2], steps=4, **wrong)


def test_as_diffusers_a_strength_may_leave_no_step_and_is_refused(folder):
    model = load_model(folder, conventions="diffusers")
    with pytest.raises(ValueError, match="leaves none of 4 steps"):
        sample_prior(
            model.prior, encode_text(model.clip, ["a"]), seeds=[1], steps=4, start=torch.zeros(1, 16), strength=0.2
        )
