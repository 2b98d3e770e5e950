"""The prior transformer against diffusers', and its masks by what may change what."""

import dataclasses

import pytest
import torch
from diffusers import PriorTransformer as DiffusersPrior
from diffusers_oracle import PRIOR, rename
from factories import draw, error, randomise

from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer, attention_bias

TOLERANCE = 1e-5
SMALL = PriorParams(width=32, layers=3, heads=4, head_dim=8, embed_dim=12, text_width=12, text_tokens=6)


def inputs(batch):
    lengths = torch.tensor([6, 3, 1, 5])[:batch]
    return {
        "x": draw(batch, 12, seed=2),
        "t": torch.tensor([0, 999, 250, 41])[:batch],
        "text_embeds": draw(batch, 12, seed=3),
        "text_states": draw(batch, 6, 12, seed=4),
        "text_mask": torch.arange(6)[None] < lengths[:, None],
    }


def small_net(params=SMALL):
    return randomise(PriorTransformer(params))


@pytest.mark.parametrize("soft_mask", [False, True])
@torch.no_grad()
def test_equals_diffusers(soft_mask):
    oracle = randomise(
        DiffusersPrior(
            num_attention_heads=4,
            attention_head_dim=8,
            num_layers=3,
            embedding_dim=12,
            num_embeddings=6,
        )
    )
    net = PriorTransformer(dataclasses.replace(SMALL, soft_mask=soft_mask))
    net.load_state_dict(rename(oracle.state_dict(), PRIOR), strict=True)
    given = inputs(4)
    reference = oracle(
        given["x"],
        given["t"],
        proj_embedding=given["text_embeds"],
        encoder_hidden_states=given["text_states"],
        attention_mask=given["text_mask"],
    ).predicted_image_embedding
    assert error(net(**given), reference) < TOLERANCE
    latents = draw(4, 12, seed=9)
    assert error(net.denormalize_embeds(latents), oracle.post_process_latents(latents)) < 1e-6


def test_gradients_take_the_same_road():
    net, given = small_net(), inputs(4)
    with torch.no_grad():
        fused = net(**given)
    assert error(net(**given), fused) < TOLERANCE


@pytest.mark.parametrize("soft_mask", [False, True])
@torch.no_grad()
def test_steps_on_a_shared_prefix_equal_the_whole(soft_mask):
    net, given = small_net(dataclasses.replace(SMALL, soft_mask=soft_mask)), inputs(4)
    x, t = given.pop("x"), given.pop("t")
    prefix = net.prefix(**given)
    assert all(len(value) == 4 for value in prefix.values())
    for step in range(3):
        assert error(net.step(x + step, t // (step + 1), prefix), net(x + step, t // (step + 1), **given)) < 1e-6


def test_a_prefix_that_would_read_ahead_is_refused():
    given = {key: value for key, value in inputs(2).items() if key.startswith("text")}
    net = small_net(dataclasses.replace(SMALL, soft_mask=True))
    with pytest.raises(ValueError, match="first token"):
        net.prefix(**given | {"text_mask": torch.zeros(2, 6, dtype=torch.bool)})


@pytest.mark.parametrize("soft", [False, True])
def test_bias_by_definition(soft):
    mask = torch.tensor([[True, True, False], [False, False, False]])
    bias = attention_bias(mask, 2, soft, torch.float64)
    assert bias.shape == (2, 1, 5, 5)
    for b in range(2):
        for query in range(5):
            for key in range(5):
                padding, ahead = key < 3 and not mask[b, key], key > query
                hard = -torch.inf if (padding or ahead) and key != query else 0.0
                wanted = -10000.0 * (int(padding) + int(ahead)) if soft else hard
                assert bias[b, 0, query, key] == wanted


@torch.no_grad()
def test_padding_is_not_read():
    net, given = small_net(), inputs(4)
    before = net(**given)
    given["text_states"][~given["text_mask"]] = 50.0
    assert torch.equal(net(**given), before)
    given["text_states"][0, 5] = 50.0  # not padding there
    assert error(net(**given)[:1], before[:1]) > 0.01


@torch.no_grad()
def test_tokens_do_not_read_ahead():
    net, given, seen = small_net(), inputs(1), []
    net.blocks[-1].register_forward_hook(lambda module, args, output: seen.append(output))
    net(**given)
    given["text_states"][0, 4] += 1.0
    net(**given)
    changed = (seen[0] - seen[1]).abs().amax(dim=(0, 2)) > 1e-7
    assert changed.tolist() == [False] * 4 + [True] * 6


@torch.no_grad()
def test_every_input_is_heard():
    net, given = small_net(), inputs(2)
    before = net(**given)
    others = {"x": given["x"] + 1, "t": given["t"] + 100, "text_embeds": -given["text_embeds"]}
    for name, other in others.items():
        assert error(net(**given | {name: other}), before) > 0.01, name


@torch.no_grad()
def test_no_text_at_all_stays_finite_and_equals_the_soft_mask():
    given = inputs(2) | {"text_mask": torch.zeros(2, 6, dtype=torch.bool)}
    soft = small_net(dataclasses.replace(SMALL, soft_mask=True))
    assert error(small_net()(**given), soft(**given)) < TOLERANCE


@torch.no_grad()
def test_batch_does_not_matter():
    net, given = small_net(), inputs(4)
    together = net(**given)
    for i in range(4):
        alone = net(**{key: value[i : i + 1] for key, value in given.items()})
        assert error(together[i : i + 1], alone) < TOLERANCE


def test_statistics_go_there_and_back():
    net = small_net()
    net.clip_mean.copy_(draw(1, 12, seed=5))
    net.clip_std.copy_(draw(1, 12, seed=6).exp())
    embeds = draw(3, 12, seed=7)
    normal = net.normalize_embeds(embeds)
    back = normal.double() * net.clip_std.double() + net.clip_mean.double()
    assert error(back, embeds.double()) < 1e-6
    assert error(net.denormalize_embeds(normal), embeds) < 1e-6
    assert {"clip_mean", "clip_std"} <= set(net.state_dict())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4 heads of 8 make 32, not width 40"):
        dataclasses.replace(SMALL, width=40)
    with pytest.raises(ValueError, match="layers must be a positive whole number, got 0"):
        dataclasses.replace(SMALL, layers=0)
    net, given = small_net(), inputs(2)
    with pytest.raises(ValueError, match="text of 5 tokens, the net takes 6"):
        net(**given | {"text_states": draw(2, 5, 12)})
    with pytest.raises(ValueError, match=r"must be bool \(2, 6\).*float32"):
        net(**given | {"text_mask": given["text_mask"].float()})
    for other in ({"text_states": draw(2, 6, 10)}, {"text_embeds": draw(2, 10)}):
        with pytest.raises(ValueError, match="reads text embeddings of 12 numbers with token states of 12; given are"):
            net(**given | other)
        texts = {name: value for name, value in (given | other).items() if name.startswith("text")}
        with pytest.raises(ValueError, match="the text encoder that it was trained with"):
            net.prefix(**texts)
