"""Model folders of small random weights in the project's own format, and their parts from the loader."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from unclip.nodes import host
from unclip.nodes.loaders import UnclipLoadModel
from unclip.unclip_core.clip.open_clip_adapter import ClipConfig, build_open_clip
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.params import params_to_dict
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet
from unclip.unclip_core.weights.files import save_weights

WIDTH, CONTEXT, SIDE = 16, 32, 16
WORDS = ("a", "red", "blue", "circle", "square")
COMPONENTS = ("clip", "prior", "decoder", "upsampler")


def unet(in_channels, maps):
    return UNetParams(
        in_channels=in_channels, out_channels=3, channels=(8, 16), blocks=(1, 1), attention=(False, False),
        map_channels=maps, time_channels=8, time_embed_dim=16, mid_blocks=1, groups=4, patch_size=2, layout="light",
    )  # fmt: skip


def random_weights(net, seed):
    """Output layers start at zero, which would hide every error."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(value.shape, generator=generator) * 0.3 if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }


def write_model(folder: Path, family="test"):
    """A model folder of one family: text and image embeddings of WIDTH numbers, images of SIDE px."""
    clip = ClipConfig(
        model={
            "embed_dim": WIDTH,
            "vision_cfg": {"image_size": SIDE, "patch_size": 8, "layers": 1, "width": WIDTH, "head_width": 8},
            "text_cfg": {"context_length": CONTEXT, "vocab_size": 515, "layers": 1, "width": WIDTH, "heads": 2},
        },
        merges="r e",
        words=WORDS,
        normalize=True,
    )
    prior = PriorParams(width=16, layers=1, heads=2, head_dim=8, embed_dim=WIDTH, text_width=WIDTH, text_tokens=CONTEXT)
    conditioner = MapConditionerParams(
        embed_dim=WIDTH, hidden=16, time_embed_dim=16, map_channels=(0, 4), map_sizes=(0, SIDE // 4)
    )
    decoder = DecoderParams(conditioner=conditioner, unet=unet(3, (0, 4)), image_size=SIDE)
    upsampler = unet(6, (0, 0))
    diffusion = asdict(DiffusionSpec(prediction="sample", clip_range=5.0))
    parts = {
        "clip": (build_open_clip(clip), asdict(clip)),
        "prior": (PriorTransformer(prior), {"net": params_to_dict(prior), "unit_norm": True}),
        "decoder": (DecoderNet(decoder), {"net": decoder.to_dict()}),
        "upsampler": (UpsamplerNet(upsampler), {"net": params_to_dict(upsampler), "scale": 4}),
    }
    for seed, (name, (net, config)) in enumerate(parts.items()):
        config = config if name == "clip" else {**config, "diffusion": diffusion}
        save_weights(folder / f"{name}.safetensors", random_weights(net, seed), config)
    index = {name: f"{name}.safetensors" for name in COMPONENTS}
    entries = {"format": "unclip-v1", "family": family, "components": index}
    (folder / "model_index.json").write_text(json.dumps(entries), encoding="utf-8")
    return folder


def add_second_upsampler(folder: Path, from_size: int, seed: int = 9):
    """A second upsampler of random weights, for images of `from_size` px."""
    params = unet(6, (0, 0))
    config = {
        "net": params_to_dict(params),
        "diffusion": asdict(DiffusionSpec(prediction="sample", clip_range=5.0)),
        "scale": 4,
        "from_size": from_size,
    }
    save_weights(folder / "another.safetensors", random_weights(UpsamplerNet(params), seed), config)
    index = json.loads((folder / "model_index.json").read_text())
    index["components"]["second_upsampler"] = "another.safetensors"
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A models folder with two families of the same shapes: `mine` and `other`."""
    root = tmp_path_factory.mktemp("models")
    write_model(root / "mine", "test")
    write_model(root / "other", "another")
    return root


@pytest.fixture
def model_folder(models, monkeypatch):
    """Makes the loader list the folder `models`."""
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(models))
    return models


def load(models, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(host.FOLDER_VARIABLE, str(models))
        return SimpleNamespace(**dict(zip(COMPONENTS, UnclipLoadModel().run(name), strict=True)))


@pytest.fixture(scope="session")
def mine(models):
    """The parts of `mine`, family "test": clip, prior, decoder, upsampler."""
    return load(models, "mine")


@pytest.fixture(scope="session")
def with_second(tmp_path_factory):
    """The parts of a model whose upscaler has a second net, for images of 4 * SIDE px."""
    root = tmp_path_factory.mktemp("with_second")
    add_second_upsampler(write_model(root / "both"), 4 * SIDE)
    return load(root, "both")


@pytest.fixture(scope="session")
def stated(tmp_path_factory):
    """The parts of a model whose index states settings that no other has."""
    root = tmp_path_factory.mktemp("stated")
    path = write_model(root / "stated") / "model_index.json"
    settings = {
        "prior": {"steps": 3, "guidance_scale": 1.5, "sampler": "ddpm"},
        "decoder": {"steps": 4, "guidance_scale": 3.0, "sampler": "ddim"},
        "upsampler": {"steps": 2, "sampler": "ddpm"},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": settings}), encoding="utf-8")
    return load(root, "stated")


@pytest.fixture(scope="session")
def other(models):
    """The parts of `other`, family "another"."""
    return load(models, "other")


@pytest.fixture(scope="session")
def karlo_models(tmp_path_factory):
    """A models folder with small random Karlos under the published names, and an image beside them."""
    root = tmp_path_factory.mktemp("karlo")
    for name in ("karlo-v1-alpha", "karlo-v1-alpha-image-variations"):
        write_random_karlo(root / name, small_size())
    Image.linear_gradient("L").convert("RGB").save(root / "example.png")
    return root
