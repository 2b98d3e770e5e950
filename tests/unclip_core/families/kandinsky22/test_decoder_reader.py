"""Decoder folders of Kandinsky 2.2 as diffusers writes them, against diffusers."""

import json
import os
import shutil

import factories
import kandinsky_oracle as oracle
import pytest
import torch

from unclip.unclip_core.families.convert import convert
from unclip.unclip_core.families.detect import family_of, is_supported
from unclip.unclip_core.families.kandinsky22.random_decoder import small_size, write_random_decoder
from unclip.unclip_core.families.kandinsky22.reader import find_prior, named_prior
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import MissingPart, StageSettings
from unclip.unclip_core.nets.decoder import DecoderNet
from unclip.unclip_core.weights.files import CheckpointError


@pytest.fixture(scope="module")
def pipes():
    return {beside: oracle.pipeline(beside) for beside in oracle.PIPELINES}


@pytest.fixture(scope="module")
def folders(pipes, tmp_path_factory):
    place = tmp_path_factory.mktemp("kandinsky")
    return {beside: oracle.write(place / str(beside), pipe) for beside, pipe in pipes.items()}


@pytest.fixture
def copy(folders, tmp_path):
    return shutil.copytree(folders[None], tmp_path / "copy")


@pytest.mark.parametrize("beside", oracle.PIPELINES)
def test_each_unet_is_diffusers(pipes, folders, beside):
    model = load_model(folders[beside])
    assert is_supported(folders[beside]) and family_of(folders[beside]).name == "kandinsky22"
    model.reader.check()
    assert model.family == f"kandinsky22-{oracle.WIDTH}" and model.reader.parts == {"decoder"}
    decoder, theirs = model.decoder, pipes[beside].unet
    assert decoder.reads_beside == beside and decoder.image_size == 64 and decoder.any_size
    embeds, _ = oracle.embeds()
    x, t = factories.draw(2, 4, 8, 16), torch.tensor([0, 981])
    more = {None: 0, "masked": 5, "hint": 4}[beside]
    extra = factories.draw(2, more, 8, 16, seed=5)
    added, condition = {"image_embeds": embeds}, decoder.net.condition(embeds)
    with torch.no_grad():
        if beside == "hint":
            picture = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(1))
            added["hint"], extra = picture, decoder.net.conditioner.read_hint(picture)
        sample = x if beside == "hint" else torch.cat([x, extra], dim=1)
        reference = theirs(sample, t, encoder_hidden_states=None, added_cond_kwargs=added).sample
        if more:
            condition["beside"] = extra
        assert factories.error(decoder.net(x, t, condition), reference) < 1e-5
        assert factories.error(decoder.net(x, t, decoder.net.prepare(condition)), reference) < 1e-5


def test_its_codec_is_the_folders_movq(pipes, folders):
    decoder, movq = load_model(folders[None]).decoder, pipes[None].movq
    images = factories.draw(1, 3, 64, 32).clamp(-1, 1)
    with torch.no_grad():
        latents = movq.encode(images).latents
        assert factories.error(decoder.codec.encode(images), latents) < 1e-5
        assert (
            factories.error(decoder.codec.decode(latents), movq.decode(latents, force_not_quantize=True).sample) < 1e-5
        )
    assert decoder.latent_shape == (4, 8, 8) and decoder.settings == StageSettings(50, 4.0, "ddpm")
    assert decoder.latent_shape_of(16, 17) == (4, 2, 4) and decoder.latent_shape_of(1, 64) == (4, 2, 8)
    for size in ((0, 8), (8, 4097)):
        with pytest.raises(ValueError, match="1 to 4096 px"):
            decoder.latent_shape_of(*size)


@pytest.mark.parametrize("form", ["bin", "fp16", "fp16 bin", "shards"])
def test_every_form_of_the_weights_is_read(pipes, tmp_path, form):
    more = {"max_shard_size": "60KB"} if form == "shards" else {}
    variant = "fp16" if "fp16" in form else None
    folder = oracle.write(tmp_path / "model", pipes[None], variant, "bin" not in form, **more)
    decoder = load_model(folder).decoder
    embeds, x, t = oracle.embeds()[0], factories.draw(2, 4, 8, 8), torch.tensor([5, 500])
    with torch.no_grad():
        reference = pipes[None].unet(x, t, None, added_cond_kwargs={"image_embeds": embeds}).sample
        assert factories.error(decoder.net(x, t, decoder.net.condition(embeds)), reference) < 1e-5


def test_the_hubs_cache_of_links_is_read(folders, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "models--a--decoder" / "snapshots" / "abc"
    shutil.copytree(folders[None], blobs)
    for path in [path for path in blobs.rglob("*") if path.is_file()]:
        link = snapshot / path.relative_to(blobs)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    load_model(snapshot).reader.check()
    assert load_model(snapshot).decoder.image_size == 64


def test_a_card_names_the_prior(folders, copy, tmp_path):
    assert named_prior(copy) is None and find_prior(copy) is None
    for card in ("---\nprior:\n- owner/the-prior\n---\n", "---\na: b\nprior: owner/the-prior\n---\ntext",
                 "---\r\nprior: 'owner/the-prior'\r\n---\r\n"):  # fmt: skip
        (copy / "README.md").write_text(card)
        assert named_prior(copy) == "owner/the-prior", card
    for card in ("prior: owner/name\n", "---\na: b\n---\nprior: owner/name\n", ""):
        (copy / "README.md").write_text(card)
        assert named_prior(copy) is None, card
    (copy / "README.md").write_text("---\nprior:\n- owner/the-prior\n---\n")
    assert find_prior(copy) is None
    beside = tmp_path / "the-prior"
    beside.mkdir()
    (beside / "model_index.json").write_text("{}")
    assert find_prior(copy) == beside
    snapshot = tmp_path / "hub" / "models--o--decoder" / "snapshots" / "1"
    shutil.copytree(copy, snapshot)
    cached = tmp_path / "hub" / "models--owner--the-prior" / "snapshots" / "2"
    shutil.copytree(beside, cached)
    (cached.parent / "1").symlink_to("gone")
    assert find_prior(snapshot) == cached
    newer = shutil.copytree(cached, cached.parent / "0")
    os.utime(newer, (2e9, 2e9))
    assert find_prior(snapshot) == newer


def test_what_is_not_there_is_named(folders, copy):
    model = load_model(folders[None])
    for part in ("clip", "prior", "upsampler"):
        with pytest.raises(MissingPart, match=f"has no '{part}'"):
            getattr(model, part)
    with pytest.raises(ValueError, match="embedding of an empty picture"):
        _ = model.decoder.net.conditioner.null_image
    shutil.rmtree(copy / "movq")
    with pytest.raises(CheckpointError, match="'copy' has no 'movq'"):
        load_model(copy).decoder  # noqa: B018
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"movq": [None, None]}))
    with pytest.raises(CheckpointError, match="names no 'movq'"):
        load_model(copy)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("unet/config.json", {"addition_embed_type": "text"}, "'addition_embed_type' is 'text'"),
        ("unet/config.json", {"encoder_hid_dim_type": "text_proj"}, "'encoder_hid_dim_type' is 'text_proj'"),
        ("unet/config.json", {"class_embed_type": "identity"}, "'class_embed_type' is 'identity'"),
        ("unet/config.json", {"encoder_hid_dim": "20"}, "'encoder_hid_dim' is '20'"),
        ("unet/config.json", {"encoder_hid_dim": 30}, "does not fit its configuration"),
        ("unet/config.json", {"in_channels": 5}, "'in_channels' is 5"),
        ("unet/config.json", {"act_fn": "gelu"}, "'act_fn' is 'gelu'"),
        ("movq/config.json", {"norm_type": "group"}, "'norm_type' is 'group'"),
        ("movq/config.json", {"layers_per_block": 2}, "missing 'decoder.up_blocks"),
        ("movq/config.json", {"layers_per_block": "2"}, "layers_per_block: Input should be a valid integer"),
        ("movq/config.json", {"num_vq_embeddings": 10**9}, "codes"),
        ("movq/config.json", {"layers_per_block": 10**9}, "blocks"),
        ("movq/config.json", {"block_out_channels": None}, "block_out_channels"),
        ("movq/config.json", {"up_block_types": ["UpDecoderBlock2D"] * 4}, "does not mirror the way down"),
        ("movq/config.json", {"down_block_types": ["Other"] * 4}, "'block type' is 'Other'"),
        ("scheduler/scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"}, "'EulerDiscreteScheduler'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "'beta_schedule' is 'sigmoid'"),
        ("scheduler/scheduler_config.json", {"variance_type": "learned"}, "'variance_type' is 'learned'"),
        ("scheduler/scheduler_config.json", {"beta_end": 0.0001}, "betas must satisfy"),
        ("scheduler/scheduler_config.json", {"beta_end": "much"}, "beta_end: Input should be a valid number"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}, "num_train_timesteps"),
    ],
)  # fmt: skip
def test_what_ours_cannot_follow_is_refused_by_name(copy, file, change, said):
    oracle.changed(copy, file, **change)
    with pytest.raises(CheckpointError, match=said):
        model = load_model(copy)
        model.reader.check()
        model.decoder  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize("beside", oracle.PIPELINES)
def test_what_is_converted_draws_the_same(folders, tmp_path, beside):
    source = shutil.copytree(folders[beside], tmp_path / "source")
    (source / "README.md").write_text("---\nprior:\n- owner/the-prior\n---\n")
    for change, name in ({}, "as it is"), ({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}, "ddim"):
        oracle.changed(source, "scheduler/scheduler_config.json", **change)
        target = convert(source, tmp_path / name)
        first, second = load_model(source).decoder, load_model(target).decoder
        assert first.diffusion == second.diffusion and first.settings == second.settings
        assert first.reads_beside == second.reads_beside and named_prior(target) == "owner/the-prior"
        states = second.module.state_dict()
        assert all(torch.equal(value, states[key]) for key, value in first.module.state_dict().items())


def test_a_folder_of_random_weights_is_one_that_diffusers_reads(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    for beside, kind in oracle.PIPELINES.items():
        folder = write_random_decoder(tmp_path / str(beside), small_size(beside=beside))
        pipe = getattr(diffusers, kind).from_pretrained(folder)
        decoder = load_model(folder).decoder
        latents = factories.draw(1, 4, 3, 2)
        with torch.no_grad():
            reference = pipe.movq.decode(latents, force_not_quantize=True).sample
            assert factories.error(decoder.codec.decode(latents), reference) < 1e-5
        assert pipe.scheduler.config.steps_offset == 1 and pipe.unet.config.encoder_hid_dim == 16
    parameters = sum(p.numel() for p in DecoderNet(small_size().decoder).parameters())
    assert parameters < 1_000_000
