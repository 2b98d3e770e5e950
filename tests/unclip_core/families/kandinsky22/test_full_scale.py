"""Kandinsky 2.2 at its published size, without memory: nets of the published configurations, and their keys and shapes.

`full_scale_keys.json.gz` has every key and shape of the published files by component; `published_configs.json` the
configurations whose content is known to the byte. The towers' own are not among them: `full_size` stands for those.
"""

import gzip
import json
from pathlib import Path

import pytest
import torch

from unclip.unclip_core.families import clip_config, prior_config
from unclip.unclip_core.families.kandinsky22 import decoder_config
from unclip.unclip_core.families.kandinsky22.decoder_reader import decoder_key_map, movq_key_map
from unclip.unclip_core.families.kandinsky22.prior_reader import diffusion_spec
from unclip.unclip_core.families.kandinsky22.random_decoder import full_size as full_decoder
from unclip.unclip_core.families.kandinsky22.random_prior import full_size as full_prior
from unclip.unclip_core.families.karlo import names
from unclip.unclip_core.nets.clip_towers import TextTower, VisionTower
from unclip.unclip_core.nets.decoder import DecoderNet
from unclip.unclip_core.nets.movq import MoVQ
from unclip.unclip_core.nets.prior import PriorTransformer

HERE = Path(__file__).parent
KEYS = json.loads(gzip.decompress((HERE / "full_scale_keys.json.gz").read_bytes()))
CONFIGS = json.loads((HERE / "published_configs.json").read_text())
INPAINT = CONFIGS["inpaint unet"]
UNETS = {
    "decoder/unet": INPAINT | {"in_channels": 4},
    "decoder-inpaint/unet": INPAINT,
    "controlnet-depth/unet": INPAINT | {"in_channels": 8, "addition_embed_type": "image_hint"},
}
PARAMETERS = {
    "prior/prior": 1_026_225_920,
    "prior/text_encoder": 694_659_840,
    "prior/image_encoder": 1_844_907_264,
    "decoder/unet": 1_253_057_288,
    "decoder-inpaint/unet": 1_253_074_568,
    "controlnet-depth/unet": 1_253_429_212,
    "movq": 67_832_495,
}


def unet(config):
    return DecoderNet(decoder_config.decoder_params(config)), decoder_key_map


def movq(config):
    told = {key: value for key, value in config.items() if key in decoder_config.MoVQConfig.__dataclass_fields__}
    return MoVQ(decoder_config.MoVQConfig(**told).params()), movq_key_map


def build(component):
    if component in UNETS:
        return unet(UNETS[component])
    if component == "movq":
        return movq(CONFIGS["movq"])
    sizes = full_prior()
    if component == "prior/prior":
        net = PriorTransformer(prior_config.prior_params(CONFIGS["prior"], soft_mask=False))
        return net, names.diffusers_key_map(names.PRIOR)
    if component == "prior/text_encoder":
        return TextTower(sizes.text), names.diffusers_key_map(names.TEXT_TOWER)
    return VisionTower(sizes.vision), names.diffusers_key_map(names.VISION_TOWER)


@pytest.mark.parametrize("component", KEYS)
def test_keys_shapes_and_number_of_parameters(component):
    with torch.device("meta"):
        net, key_map = build(component)
    ours = {key_map(key).key: list(value.shape) for key, value in net.state_dict().items()}
    published = {key: shape for key, shape in KEYS[component].items() if not key.endswith("position_ids")}
    assert ours == published
    assert sum(value.numel() for value in net.state_dict().values()) == PARAMETERS[component]


def test_the_presets_are_what_the_published_configurations_say():
    sizes = full_prior()
    assert prior_config.prior_params(CONFIGS["prior"], soft_mask=False) == sizes.prior
    for config, beside in zip(UNETS.values(), (None, "masked", "hint"), strict=True):
        params = decoder_config.decoder_params(config)
        assert params == full_decoder(beside).decoder and decoder_config.reads_beside(params, 4) == beside
    spec = diffusion_spec(CONFIGS["prior scheduler"], compatible=True)
    assert (spec.schedule, spec.train_steps, spec.prediction, spec.clip_range) == ("cosine", 1000, "sample", 10.0)
    images = clip_config.image_input(CONFIGS["image processor"], sizes.vision.image_size, squash=False)
    assert (images.crop, images.shortest_edge, images.resample) == (224, 224, 3)


def test_configurations_survive_the_way_there_and_back():
    sizes, decoder = full_prior(), full_decoder("hint")
    assert prior_config.prior_params(prior_config.prior_config(sizes.prior), soft_mask=False) == sizes.prior
    assert clip_config.text_tower_params(clip_config.text_tower_config(sizes.text)) == sizes.text
    assert clip_config.vision_tower_params(clip_config.vision_tower_config(sizes.vision)) == sizes.vision
    assert decoder_config.decoder_params(decoder_config.unet_config(decoder.decoder)) == decoder.decoder


@pytest.mark.parametrize("name", ["text_config", "vision_config"])
def test_a_tower_is_found_in_a_whole_clips_configuration(name):
    sizes = full_prior()
    read, write, params = {
        "text_config": (clip_config.text_tower_params, clip_config.text_tower_config, sizes.text),
        "vision_config": (clip_config.vision_tower_params, clip_config.vision_tower_config, sizes.vision),
    }[name]
    assert read({"model_type": "clip", name: write(params)}) == params
    with pytest.raises(ValueError, match=f"without a table '{name}'"):
        read({"model_type": "clip", name: [1]})
