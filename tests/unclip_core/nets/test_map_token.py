"""Maps and context tokens in one conditioner: each as alone, and no text the same however it is missing."""

import pytest
import torch
from factories import draw, randomise, unet_params

from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.models import Decoder
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditioner, MapConditionerParams
from unclip.unclip_core.nets.map_token_conditioner import MapTokenConditionerParams
from unclip.unclip_core.pipelines import sample_decoder

MAPS = {"embed_dim": 8, "hidden": 12, "time_embed_dim": 16, "map_channels": (0, 4), "map_sizes": (0, 4)}
PARAMS = MapTokenConditionerParams(**MAPS, text_width=6, text_tokens=5, context_dim=10, extra_tokens=2)


def net_of():
    unet = unet_params(3, (0, 4), attention=(False, True), head_dim=8, context_dim=10)
    return randomise(DecoderNet(DecoderParams(conditioner=PARAMS, unet=unet, image_size=16)))


def text_of(rows=3):
    mask = torch.tensor([[True] * 3 + [False] * 2]).expand(rows, -1)
    return {"text_embeds": draw(rows, 8, seed=2), "text_states": draw(rows, 5, 6, seed=3), "text_mask": mask}


def test_params_go_through_a_file():
    params = net_of().params
    assert DecoderParams.from_dict(params.to_dict()) == params
    assert params.to_dict()["conditioner"]["kind"] == "map_token" and PARAMS.context_width == 10
    with pytest.raises(ValueError, match="text_tokens must be a positive whole number"):
        MapTokenConditionerParams(**MAPS, text_width=6, text_tokens=0, context_dim=10)


def test_its_maps_are_a_map_conditioners():
    net = net_of()
    alone = MapConditioner(MapConditionerParams(**MAPS))
    alone.load_state_dict({n: t for n, t in net.conditioner.state_dict().items() if n in alone.state_dict()})
    both, maps = net.condition(draw(3, 8), **text_of()), alone(draw(3, 8), **text_of())
    for name in ("embed", "maps.1"):
        torch.testing.assert_close(both[name], maps[name])
    assert both["context"].shape == (3, 7, 10) and both["context_mask"].tolist() == [[True] * 5 + [False] * 2] * 3


def test_a_text_of_another_clip_is_refused():
    for other, given in (({"text_embeds": draw(3, 7)}, "7"), ({"text_states": draw(3, 5, 7)}, "8 and 7")):
        with pytest.raises(ValueError, match=f"given are {given}: take the text encoder"):
            net_of().condition(draw(3, 8), **text_of() | other)


@torch.no_grad()
def test_what_is_masked_has_no_effect_and_what_is_not_has():
    net, x, t = net_of(), draw(3, 3, 16, 16, seed=5), torch.tensor([1, 5, 9])
    text = text_of()
    said = net(x, t, net.condition(draw(3, 8), **text))
    for token, differs in ((4, False), (1, True)):
        changed = text | {"text_states": text["text_states"].index_fill(1, torch.tensor(token), 9.0)}
        other = net(x, t, net.condition(draw(3, 8), **changed))
        assert (not torch.allclose(other, said, atol=1e-5)) == differs


@torch.no_grad()
def test_no_text_and_a_dropped_one_are_the_same():
    net, x, t = net_of(), draw(3, 3, 16, 16, seed=5), torch.tensor([1, 5, 9])
    none = net(x, t, net.condition(draw(3, 8)))
    dropped = net(x, t, net.condition(draw(3, 8), **text_of(), drop_text=torch.ones(3, dtype=torch.bool)))
    torch.testing.assert_close(none, dropped)
    with pytest.raises(ValueError, match="needs its token states"):
        net.condition(draw(3, 8), text_embeds=draw(3, 8))


def test_a_decoder_of_it_is_sampled_with_and_without_text():
    from unclip.unclip_core.clip.adapter import TextCondition

    part = Decoder("test", net_of(), DiffusionSpec(prediction="v_prediction", clip_range=1.0), 16)
    text = TextCondition(**{name.removeprefix("text_"): value for name, value in text_of(2).items()})
    told = sample_decoder(part, draw(2, 8), text=text, steps=2, guidance_scale=2.0, seeds=[1, 2])
    untold = sample_decoder(part, draw(2, 8), steps=2, guidance_scale=2.0, seeds=[1, 2])
    assert told.shape == (2, 16, 16, 3) and not torch.allclose(told, untold)
