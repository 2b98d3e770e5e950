"""Karlo at its published size, without memory: every key and shape of the diffusers folder and the native files."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from diffusers import PriorTransformer as DiffusersPrior
from diffusers import UNet2DConditionModel, UNet2DModel

from unclip.unclip_core.families import clip_config, prior_config
from unclip.unclip_core.families.karlo import config as configs
from unclip.unclip_core.families.karlo import kakao_names, kakao_params, names
from unclip.unclip_core.families.karlo.random_weights import full_size
from unclip.unclip_core.nets.clip_towers import TextTower, VisionTower
from unclip.unclip_core.nets.prior import PriorTransformer
from unclip.unclip_core.nets.token_conditioner import TokenConditioner
from unclip.unclip_core.nets.unet import UNet
from unclip.unclip_core.weights.tensors import Tensors

KEYS = json.loads(gzip.decompress((Path(__file__).parent / "karlo_full_scale_keys.json.gz").read_bytes()))
SIZES = full_size()


@pytest.fixture(scope="module")
def nets():
    with torch.device("meta"):
        return {
            "text_encoder": (TextTower(SIZES.text), names.TEXT_TOWER),
            "image_encoder": (VisionTower(SIZES.vision), names.VISION_TOWER),
            "prior": (PriorTransformer(SIZES.prior), names.PRIOR),
            "text_proj": (TokenConditioner(SIZES.decoder.conditioner), names.TEXT_PROJECTION),
            "decoder": (UNet(SIZES.decoder.unet), names.UNET),
            "super_res_first": (UNet(SIZES.super_res), names.UNET),
            "super_res_last": (UNet(SIZES.super_res), names.UNET),
        }


def sources(net, key_map):
    """Key -> shape of what a net asks of a source."""
    return {
        o.key: list(o.source_shape(tuple(value.shape)))
        for key, value in net.state_dict().items()
        for o in [key_map(key)]
    }


@pytest.mark.parametrize("name", [key.split("/")[1] for key in KEYS if key.startswith("diffusers/")])
def test_diffusers_keys_and_shapes(nets, name):
    net, rules = nets[name]
    expected = {key: shape for key, shape in KEYS[f"diffusers/{name}"].items() if not key.endswith("position_ids")}
    assert sources(net, names.diffusers_key_map(rules)) == expected


def test_native_prior_keys_and_shapes(nets):
    found = sources(nets["prior"][0], kakao_names.prior_key_map(64))
    assert (found.pop("clip_mean"), found.pop("clip_std")) == ([1, 768], [1, 768])  # of the statistics' own file
    assert found == KEYS["native/prior"]


def test_native_decoder_keys_and_shapes(nets):
    found = sources(nets["text_proj"][0], kakao_names.conditioner_key_map)
    found |= sources(nets["decoder"][0], kakao_names.unet_key_map(SIZES.decoder.unet, "model."))
    assert found == KEYS["native/decoder"]


def test_native_super_resolution_keys_and_shapes(nets):
    found = {}
    for prefix, name in (("model_first_steps.", "super_res_first"), ("model_last_step.", "super_res_last")):
        found |= sources(nets[name][0], kakao_names.unet_key_map(SIZES.super_res, prefix))
    assert found == KEYS["native/sr"]


NO_YAML = kakao_params.KakaoSettings()


def native(name):
    shapes = {key: tuple(shape) for key, shape in KEYS[f"native/{name}"].items()}
    return Tensors(Path(name), shapes, lambda key: torch.empty(shapes[key]))


def test_native_shapes_say_the_hyper_parameters():
    assert kakao_params.prior(native("prior"), NO_YAML, False) == SIZES.prior
    assert kakao_params.decoder(native("decoder"), NO_YAML) == SIZES.decoder
    for prefix in ("model_first_steps.", "model_last_step."):
        half = native("sr").only(lambda key, prefix=prefix: key.startswith(prefix))
        assert kakao_params.unet(half, prefix, NO_YAML) == SIZES.super_res


def test_the_numbers_of_parameters_are_the_published_ones(nets):
    counts = {name: sum(value.numel() for value in net.state_dict().values()) for name, (net, _) in nets.items()}
    assert counts == {
        "text_encoder": 123_650_304,
        "image_encoder": 303_966_208,
        "prior": 1_022_030_080,
        "text_proj": 7_878_400,
        "decoder": 885_439_686,
        "super_res_first": 691_579_523,
        "super_res_last": 691_579_523,
    }
    assert sum(counts.values()) - counts["image_encoder"] == 3_422_157_516


def test_configurations_survive_the_way_there_and_back():
    assert prior_config.prior_params(prior_config.prior_config(SIZES.prior), False) == SIZES.prior
    unet, projection = configs.decoder_config(SIZES.decoder), configs.conditioner_config(SIZES.decoder.conditioner)
    assert configs.decoder_params(unet, projection) == SIZES.decoder
    assert configs.super_res_params(configs.super_res_config(SIZES.super_res, 256)) == SIZES.super_res
    assert clip_config.text_tower_params(clip_config.text_tower_config(SIZES.text)) == SIZES.text
    assert clip_config.vision_tower_params(clip_config.vision_tower_config(SIZES.vision)) == SIZES.vision


def test_diffusers_builds_the_same_from_our_configurations(nets):
    """Its own classes, on the meta device, give the keys and shapes of ours."""
    built = {
        "prior": (DiffusersPrior, prior_config.prior_config(SIZES.prior)),
        "decoder": (UNet2DConditionModel, configs.decoder_config(SIZES.decoder)),
        "super_res_first": (UNet2DModel, configs.super_res_config(SIZES.super_res, 256)),
    }
    for name, (owner, config) in built.items():
        with torch.device("meta"):
            oracle = owner.from_config(config)
        assert {key: list(value.shape) for key, value in oracle.state_dict().items()} == KEYS[f"diffusers/{name}"]
