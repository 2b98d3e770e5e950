"""Trainings on Kandinsky 2.2's folders: fine-tuning and LoRA of prior and decoder, latents kept, the MoVQ as it was."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

pytest.importorskip("accelerate")

from own_training import curve, train, write_images

from unclip.unclip_core.data.center_crop import center_crop
from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.data.samples import BadSample
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.kandinsky22.random_decoder import small_size as small_decoder
from unclip.unclip_core.families.kandinsky22.random_decoder import write_random_decoder
from unclip.unclip_core.families.kandinsky22.random_prior import small_size as small_prior
from unclip.unclip_core.families.kandinsky22.random_prior import write_random_prior
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.lora.delta import apply_lora
from unclip.unclip_core.lora.files import read_lora
from unclip.unclip_core.train.config import config_from_dict
from unclip.unclip_core.train.datasets import DecoderDataset, KeyedDataset, PriorDataset, collate
from unclip.unclip_core.train.embedding_store import EmbeddingStore
from unclip.unclip_core.train.embeds import embed_collection
from unclip.unclip_core.train.latents import encode_latents
from unclip.unclip_core.train.losses import diffusion_loss
from unclip.unclip_core.train.noise_levels import noise_of
from unclip.unclip_core.train.objectives import objective_class
from unclip.unclip_core.train.pixels import to_net

LOSSES = {"prior": {"drop_text": 0.0}, "decoder": {"drop_image": 0.0, "drop_text": 0.0}}
FOLDERS = {"prior": "kandinsky-2-2-prior", "decoder": "kandinsky-2-2-decoder"}
LORA = {"prior": {"rank": 8}, "decoder": {"rank": 16, "targets": ["conditioner", "attention", "blocks"]}}
FALLS = {("prior", False): 10, ("prior", True): 2, ("decoder", False): 3, ("decoder", True): 1.5}
"""The loss is at least so many times smaller at the end, by stage and whether a LoRA is trained."""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"), size=70)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A prior's and a decoder's folder side by side, as they are downloaded."""
    place = tmp_path_factory.mktemp("models")
    write_random_prior(place / FOLDERS["prior"], small_prior())
    write_random_decoder(place / FOLDERS["decoder"], small_decoder(), prior="kandinsky-community/kandinsky-2-2-prior")
    return place


def config_of(base, stage, steps, lora=False):
    training = {"steps": steps, "batch": 16, "lr": 3e-3, "warmup": 5, "ema": 0.9, "log_every": 1, "weight_decay": 0.0}
    config = {"base": str(base), "training": training, "loss": LOSSES[stage]}
    return config | ({"lora": LORA[stage]} if lora else {})


@torch.no_grad()
def loss_of(part, stage, images, training):
    """The loss on the sixteen images at noise levels that are the same for each part."""
    collection, loss = open_images(str(images)), config_from_dict(config_of("x", stage, 1), stage).loss
    (index,) = (training / "embeddings").glob("*/index.json")
    store = EmbeddingStore(index.parent, captions=stage == "prior")
    if stage == "prior":
        samples = PriorDataset(store, part.diffusion, loss)
    else:
        latents = encode_latents(collection, part, training / "latents", torch.device("cpu"))
        samples = DecoderDataset(collection, store, part, loss, latents)
    rows = KeyedDataset(samples, 5)
    batch = collate([rows[(step, row, row)] for step in range(4) for row in range(16)])
    batch["noise"] = noise_of(batch.pop("noise_seed"), samples.noise_shape, "cpu")
    return float(objective_class(stage)(part.net, part.diffusion)(batch)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_sixteen_images_are_learned_by_heart(images, models, tmp_path, stage, lora):
    if lora:
        pytest.importorskip("peft")
    base, output = models / FOLDERS[stage], tmp_path / "m"
    assert train(stage, images, output, config_of(base, stage, 120, lora)) == 0
    losses = list(curve(output, stage).values())
    assert sum(losses[:5]) / 5 > FALLS[stage, lora] * sum(losses[-20:]) / 20
    before = getattr(load_model(base), stage)
    if lora:
        after = apply_lora(before, read_lora(output / f"{stage}-lora.safetensors"), 1.0)
    else:
        model = load_model(output, prior=models / FOLDERS["prior"] if stage == "decoder" else None)
        model.reader.check()
        after = getattr(model, stage)
        movqs = [part.codec.module.state_dict() for part in (before, after)] if stage == "decoder" else [{}, {}]
        assert all(torch.equal(value, movqs[1][key]) for key, value in movqs[0].items())
    ratio = loss_of(before, stage, images, output / "training") / loss_of(after, stage, images, output / "training")
    assert ratio > FALLS[stage, lora] * 0.8


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_the_result_is_the_base_with_that_part_trained(images, models, tmp_path, stage):
    base, output = models / FOLDERS[stage], tmp_path / "m"
    assert train(stage, images, output, config_of(base, stage, 1)) == 0
    there = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    made = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert there <= made
    trained = f"{'unet' if stage == 'decoder' else 'prior'}/diffusion_pytorch_model.safetensors"
    same = {name for name in there if (base / name).read_bytes() == (output / name).read_bytes()}
    assert there - same == {trained}
    assert train(stage, images, output, config_of(base, stage, 2)) == 0, "it goes on"


def test_latents_are_the_codecs_and_a_damaged_image_is_named(images, models, tmp_path):
    write_images(tmp_path / "data", count=3, size=70)
    (tmp_path / "data" / "bell.png").write_bytes(b"no image")
    collection, part = open_images(str(tmp_path / "data")), load_model(models / FOLDERS["decoder"]).decoder
    store = encode_latents(collection, part, tmp_path / "kept", torch.device("cpu"))
    (shard,) = (tmp_path / "kept").rglob("*.safetensors")
    for index, name in enumerate(["anchor", "bell", "cloud"]):
        if name == "bell":
            with pytest.raises(BadSample, match="bell"):
                store.row(index)
            continue
        image = to_net(center_crop(Image.open(tmp_path / "data" / f"{name}.png").convert("RGB"), part.image_size))
        torch.testing.assert_close(store.row(index), part.codec.encode(image[None])[0], rtol=1e-5, atol=1e-5)
    written = shard.stat().st_mtime_ns
    encode_latents(collection, part, tmp_path / "kept", torch.device("cpu"))
    assert shard.stat().st_mtime_ns == written
    (tmp_path / "data" / "bell.png").write_bytes((images / "bell.png").read_bytes())
    encode_latents(open_images(str(tmp_path / "data")), part, tmp_path / "kept", torch.device("cpu"))
    assert len(list((tmp_path / "kept").rglob("*.safetensors"))) == 2


def test_another_image_encoder_has_embeddings_of_its_own(models, tmp_path):
    """The same text encoder beside it, and the image encoder not read before the embeddings' name is made."""
    write_images(tmp_path / "data", count=2, size=40)
    collection = open_images(str(tmp_path / "data"))
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        folder = write_random_prior(tmp_path / name, small_prior())
        if seed:
            (weights,) = (folder / "image_encoder").glob("*.safetensors")
            save_file({key: value * 1.5 for key, value in load_file(weights).items()}, weights.with_suffix(".new"))
            weights.with_suffix(".new").replace(weights)
        embed_collection(collection, load_model(folder).clip.adapter, tmp_path / "kept", captions=False)
        kept = list((tmp_path / "kept").iterdir())
        assert len(kept) == (2 if seed else 1)
    stores = [EmbeddingStore(folder, captions=False).row(0)["image_embeds"] for folder in kept]
    assert (stores[0] - stores[1]).abs().max() > 1e-3


def test_a_variance_that_sampling_replaces_is_not_trained():
    spec = DiffusionSpec(schedule="linear", prediction="epsilon", variance="fixed_small", spare_variance=True)
    raw, noise = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(2, 4, 4, 4)
    levels = dict.fromkeys(("alpha_bar", "alpha_bar_before"), torch.tensor([0.5, 0.1]))
    batch = {"noise": noise, "weight": torch.ones(2), **levels}
    values = diffusion_loss(raw, torch.ones(2, 4, 4, 4), batch, spec)
    torch.testing.assert_close(values["loss"], F.mse_loss(raw[:, :4], noise))
    assert "bound" not in values
    alone = diffusion_loss(raw[:, :4], torch.ones(2, 4, 4, 4), batch, replace(spec, spare_variance=False))
    torch.testing.assert_close(values["loss"], alone["loss"])


def test_what_cannot_be_trained_is_said(images, models, tmp_path):
    def refused(base, stage, told, **change):
        with pytest.raises(ValueError, match=told):
            train(stage, images, tmp_path / "m", config_of(base, stage, 1) | change, dry_run=True)

    refused(models / FOLDERS["prior"], "decoder", "holds a prior: to train a decoder, name the decoder's own folder")
    refused(models / FOLDERS["decoder"], "prior", "holds a decoder: to train a prior")
    for beside, told in ("masked", "inpainting"), ("hint", "depth map"):
        folder = write_random_decoder(tmp_path / beside, small_decoder(beside=beside))
        refused(folder, "decoder", told)
    net = {"start": "scratch", "net": {"preset": "tiny"}}
    refused(models / FOLDERS["prior"], "prior", "neither its CLIP", **net)
    alone = write_random_decoder(tmp_path / "alone", small_decoder())
    refused(alone, "decoder", "has no CLIP.*name the folder of its prior as prior")
    config = config_of(alone, "decoder", 1) | {"prior": str(models / FOLDERS["prior"])}
    assert train("decoder", images, tmp_path / "m", config, dry_run=True) == 0
    with pytest.raises(ValueError, match="is base and output"):
        train(
            "prior", images, models / FOLDERS["prior"], config_of(models / FOLDERS["prior"], "prior", 1), dry_run=True
        )
