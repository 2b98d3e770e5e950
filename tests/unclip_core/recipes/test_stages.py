"""The stages' losses against closed forms, and each net overfitting one small batch."""

import json
import math
import random
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unclip.unclip_core.clip.open_clip_adapter import ClipConfig, OpenClipAdapter, build_open_clip
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.families.native.presets import TINY_DIFFUSION
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet, UpsamplerParams
from unclip.unclip_core.recipes.shapes import gates
from unclip.unclip_core.recipes.shapes import recipe as tiny
from unclip.unclip_core.recipes.shapes.attributes import IGNORE, attribute_targets
from unclip.unclip_core.recipes.shapes.boxes import foreground_weight, true_boxes
from unclip.unclip_core.recipes.shapes.crops import UpsamplerSource
from unclip.unclip_core.recipes.shapes.objectives import ShapesClipObjective, ShapesDecoderObjective
from unclip.unclip_core.recipes.shapes.phases import PHASES, ClipPhase, DecoderPhase, UpsamplerPhase
from unclip.unclip_core.recipes.shapes.sources import (
    ClipSource,
    DecoderSource,
    PriorSource,
    WorldBatches,
    blurred,
    embedding_statistics,
)
from unclip.unclip_core.recipes.shapes.vocabulary import bpe_merges
from unclip.unclip_core.train.config import Training
from unclip.unclip_core.train.losses import contrast
from unclip.unclip_core.train.objectives import PriorObjective, UpsamplerObjective, objective_class, register_objective
from unclip.unclip_core.train.optimizer import MuonAdamW
from unclip.unclip_core.weights.files import CheckpointError, load_weights
from unclip.unclip_core.world.captions import words
from unclip.unclip_core.world.scenes import sample_scenes

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def adapter() -> OpenClipAdapter:
    torch.manual_seed(0)
    merges = bpe_merges(words())
    text = {
        "context_length": 32,
        "vocab_size": 512 + len(merges.splitlines()) + 2,
        "layers": 1,
        "width": 32,
        "heads": 2,
    }
    vision = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16}
    model = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    config = ClipConfig(model=model, merges=merges, mean=HALF, std=HALF, normalize=True)
    return OpenClipAdapter(build_open_clip(config), config)


def unet(in_channels: int, maps: tuple[int, int]) -> UNetParams:
    return UNetParams(
        in_channels=in_channels,
        out_channels=3,
        channels=(16, 32),
        blocks=(1, 1),
        attention=(False, False),
        map_channels=maps,
        time_channels=16,
        time_embed_dim=32,
        mid_blocks=1,
        groups=4,
        patch_size=2,
        layout="light",
    )


def losses_on_one_batch(objective: nn.Module, source, steps: int, lr: float) -> list[float]:
    """Train on what step 0 draws, with its times and noise."""
    optimizer = MuonAdamW(objective, lr, weight_decay=0.0, betas=(0.9, 0.99), muon=False)
    batch, found = source.batch(0), []
    for _ in range(steps):
        loss = objective(dict(batch))["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss.detach()))
    return found


def one_step(batch: int = 16, lr: float = 1e-3) -> Training:
    return Training(steps=1, batch=batch, lr=lr, warmup=0, optimizer="muon", muon_max_side=256)


def test_contrast_is_the_cross_entropy_written_out():
    generator = torch.Generator().manual_seed(0)
    images, texts, wrong = (F.normalize(torch.randn(n, 5, generator=generator), dim=1) for n in (3, 3, 2))
    scale = math.log(7.0)
    expected = 0.0
    for i in range(3):
        to_texts = [7 * float(images[i] @ t) for t in [*texts, *wrong]]
        to_images = [7 * float(texts[i] @ image) for image in images]
        expected -= to_texts[i] - math.log(sum(map(math.exp, to_texts)))
        expected -= to_images[i] - math.log(sum(map(math.exp, to_images)))
    loss = contrast(3 * images, texts, torch.tensor(scale), wrong)["loss"]
    assert float(loss) == pytest.approx(expected / 6, rel=1e-5)


def test_the_first_thing_is_further_left_or_further_up():
    scenes = sample_scenes(random.Random(0), 60, "trained")
    labels, layout, present = attribute_targets(scenes)
    for row, scene in enumerate(scenes):
        if len(scene.things) == 1:
            assert labels["arrangement"][row] == 0
            assert labels["second_shape"][row] == IGNORE
            assert present[row].tolist() == [True] * 3 + [False] * 3
            continue
        axis = {1: 0, 2: 1}[int(labels["arrangement"][row])]
        assert layout[row, axis] < layout[row, 3 + axis]
        first = min(scene.things, key=lambda thing: (thing.x, thing.y)[axis])
        assert (labels["first_shape"][row], labels["first_color"][row]) == (first.shape, first.color)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
def test_clip_overfits_a_batch(adapter, shared):
    torch.manual_seed(0)
    phase = ClipPhase(one_step(8), shape_weight=3.0, text_weight=1.0, shared_heads=shared)
    objective = ShapesClipObjective(build_open_clip(adapter.config), adapter.config, phase)
    found = losses_on_one_batch(objective, ClipSource(adapter.config, phase, seed=0), 60, 3e-3)
    assert found[-1] < 0.45 * found[0]
    assert (objective.heads is objective.text_heads) == shared


def test_prior_overfits_a_batch(adapter):
    batches = WorldBatches(adapter, 8, seed=0, pair_fraction=0.5, empty_captions=0.1)
    torch.manual_seed(0)
    net = PriorTransformer(
        PriorParams(width=48, layers=2, heads=3, head_dim=16, embed_dim=12, text_width=32, text_tokens=32)
    )
    mean, std = embedding_statistics(batches, 4)
    net.clip_mean.data.copy_(mean)
    net.clip_std.data.copy_(std)
    spec = TINY_DIFFUSION["prior"]
    found = losses_on_one_batch(PriorObjective(net, spec), PriorSource(batches, spec, seed=0), 100, 3e-3)
    assert found[0] > 0.5
    assert found[-1] < 0.1 * found[0]


@pytest.mark.slow
def test_decoder_overfits_a_batch(adapter):
    batches = WorldBatches(adapter, 4, seed=0, pair_fraction=0.5, empty_captions=0.0)
    torch.manual_seed(0)
    conditioner = MapConditionerParams(
        embed_dim=12, hidden=64, time_embed_dim=32, map_channels=(0, 8), map_sizes=(0, 8)
    )
    net = DecoderNet(DecoderParams(conditioner=conditioner, unet=unet(3, (0, 8)), image_size=32))
    found = losses_on_one_batch(*decoder_training(net, batches), 150, 5e-3)
    assert found[-1] < 0.05 * found[0]


def decoder_training(net: DecoderNet, batches: WorldBatches, **settings) -> tuple[nn.Module, DecoderSource]:
    phase = DecoderPhase(one_step(), **settings)
    objective = objective_class(phase.objective)(net, TINY_DIFFUSION["decoder"], phase.freeze_boxes)
    return objective, DecoderSource(batches, TINY_DIFFUSION["decoder"], phase, seed=0)


def framed_decoder() -> DecoderNet:
    conditioner = MapConditionerParams(
        embed_dim=12,
        hidden=16,
        time_embed_dim=32,
        map_channels=(0, 8),
        map_sizes=(0, 8),
        frames=2,
        canvas=4,
        canvas_channels=4,
    )
    torch.manual_seed(0)
    return DecoderNet(DecoderParams(conditioner=conditioner, unet=unet(3, (0, 8)), image_size=32))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_unet_sees_canvases_where_things_are_unless_the_embedding_was_dropped(adapter, share):
    batches = WorldBatches(adapter, 40, seed=0, pair_fraction=0.5, empty_captions=0.0)
    objective, source = decoder_training(framed_decoder(), batches, true_boxes=share)
    given = []
    objective.net.register_forward_pre_hook(lambda module, arguments: given.append(arguments[2]["boxes"]))
    batch = source.batch(0)
    objective(batch)
    wanted, present = true_boxes(batches.draw(0).scenes, 2)
    moved, dropped = (given[0] == wanted).all(dim=2), batch["drop_image"]
    assert dropped.any() and not dropped.all()
    assert torch.equal(moved, present & ~dropped[:, None] if share else torch.zeros_like(present))


@pytest.mark.parametrize("frozen", [False, True])
def test_boxes_that_are_frozen_do_not_learn(adapter, frozen):
    batches = WorldBatches(adapter, 4, seed=0, pair_fraction=0.5, empty_captions=0.0)
    objective, source = decoder_training(framed_decoder(), batches, true_boxes=0.5, freeze_boxes=frozen)
    frames = objective.net.conditioner.frames
    boxes, canvases = (layer.weight.detach().clone() for layer in (frames.boxes, frames.canvases))
    losses_on_one_batch(objective, source, 1, 1e-2)
    assert torch.equal(frames.boxes.weight, boxes) == frozen
    assert not torch.equal(frames.canvases.weight, canvases)


@pytest.mark.slow
def test_a_phase_starts_from_the_weights_of_the_one_before(tmp_path, monkeypatch):
    """What stands in the folder is not trained again; the next phase begins where it ended."""
    monkeypatch.setattr(tiny, "check_clip", tiny.write_index)
    (tmp_path / "clip.safetensors").write_bytes((SHAPES / "clip.safetensors").read_bytes())
    (tmp_path / "decoder-1.safetensors").write_bytes((SHAPES / "decoder.safetensors").read_bytes())
    monkeypatch.setitem(PHASES, "decoder", (DecoderPhase(one_step(2, lr=0.0)),) * 2)
    tiny.train_tiny(tmp_path, ["decoder"], steps=1)
    assert not (tmp_path / "decoder-1.log.jsonl").exists() and not (tmp_path / "decoder-1.state.pt").exists()
    shipped, found = (load_weights(path / "decoder.safetensors")[0] for path in (SHAPES, tmp_path))
    assert found.keys() == shipped.keys()
    for name, tensor in shipped.items():
        torch.testing.assert_close(found[name].float(), tensor.float(), rtol=2**-7, atol=1e-6)


@pytest.mark.slow
def test_upsampler_overfits_a_batch():
    torch.manual_seed(0)
    params = UpsamplerParams(**asdict(unet(6, (0, 0))) | {"patch_size": 4, "norm": "none"}, residual=True, reach=1)
    spec, phase = TINY_DIFFUSION["upsampler"], UpsamplerPhase(one_step(2), size=128, crop=32)
    objective = UpsamplerObjective(UpsamplerNet(params), spec)
    found = losses_on_one_batch(objective, UpsamplerSource(phase, spec, seed=0), 200, 5e-3)
    assert found[0] == pytest.approx(1.0, abs=0.1)  # nothing is added to the enlarged image yet
    assert found[-1] < 0.2 * found[0]


def test_a_step_draws_the_same_batch_again(adapter):
    batches = WorldBatches(adapter, 4, seed=3, pair_fraction=0.5, empty_captions=0.5)
    first, again, other = batches.draw(5), batches.draw(5), batches.draw(6)
    torch.testing.assert_close(first.images, again.images, rtol=0, atol=0)
    torch.testing.assert_close(first.text.embeds, again.text.embeds)
    assert first.scenes != other.scenes


def test_the_foreground_weighs_more_and_the_mean_is_one():
    image = -torch.ones(1, 3, 32, 32)
    image[:, :, 10:14, 10:14] = 1.0
    weight = foreground_weight(image, gain=4.0)
    assert float(weight.mean()) == pytest.approx(1.0, rel=1e-5)
    assert float(weight[0, 0, 12, 12] / weight[0, 0, 30, 30]) == pytest.approx(5.0, rel=1e-5)
    assert int((weight > 1).sum()) == 10 * 10


def test_blurred_embeddings_stay_near_and_of_unit_norm():
    embeds = F.normalize(torch.randn(500, 192, generator=torch.Generator().manual_seed(0)), dim=1)
    moved = blurred(embeds, torch.Generator().manual_seed(1), most=0.25)
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(500))
    cosines = (moved * embeds).sum(dim=1)
    assert 1 / math.sqrt(1 + 0.25**2) - 0.01 < float(cosines.min()) < float(cosines.max()) <= 1.0 + 1e-6


def test_the_second_upsampler_asks_for_the_first(tmp_path):
    with pytest.raises(CheckpointError, match="train that before"):
        tiny.train_tiny(tmp_path, ["second_upsampler"], steps=1)


@pytest.mark.slow
def test_both_upsamplers_are_trained_into_one_model(tmp_path, monkeypatch):
    """On small images, one or two each, as a step and a measure of 32 say no more about where the figures go."""
    for stage in ("upsampler", "second_upsampler"):
        small = [replace(phase, size=256, training=replace(phase.training, batch=2)) for phase in PHASES[stage]]
        monkeypatch.setitem(PHASES, stage, tuple(small))
    measure = tiny.measure_upsampler
    monkeypatch.setattr(tiny, "measure_upsampler", lambda part, n, seed, **size: measure(part, 1, seed, **size))
    tiny.train_tiny(tmp_path, ["upsampler", "second_upsampler"], steps=1)
    first = load_model(tmp_path).upsampler
    assert first.fitting(63, 70) is first
    assert first.fitting(64, 70) is first.second
    assert first.second.from_size == 64
    measured = json.loads((tmp_path / "second_upsampler-measure.json").read_text())
    assert measured["upsampler"] == pytest.approx(measured["bicubic"], abs=1.0)  # after one step each


@pytest.mark.slow
def test_nothing_is_built_on_a_clip_that_fails_its_gate(tmp_path, monkeypatch):
    small = [replace(phase, training=replace(phase.training, batch=2)) for phase in PHASES["clip"]]
    monkeypatch.setitem(PHASES, "clip", (small[0], small[-1]))
    monkeypatch.setattr(tiny, "check_clip", partial(tiny.check_clip, count=32))
    tiny.train_tiny(tmp_path, ["clip"], steps=1)
    assert (tmp_path / "clip.safetensors").is_file()
    with pytest.raises(CheckpointError, match="gate"):
        tiny.train_tiny(tmp_path, ["prior"], steps=1)
    assert not (tmp_path / "prior.safetensors").exists()


def test_linear_heads_read_what_an_embedding_says_in_plain_words(monkeypatch):
    """Heads are fitted by the attributes themselves; an embedding that holds them one-hot is read without error."""
    clip = WordlyClip()
    monkeypatch.setattr(gates, "scene_embeds", lambda clip, scenes: clip.embeds(scenes))
    heads = gates.fit_heads(clip, count=400, seed=0, steps=200)
    scenes = sample_scenes(random.Random(1), 200, "held_out")
    labels, _, _ = attribute_targets(scenes)
    logits, _ = heads(clip.embeds(scenes))
    for name, values in labels.items():
        asked = values != IGNORE
        assert (logits[name].argmax(dim=1) == values)[asked].float().mean() > 0.98, name


class WordlyClip:
    """Embeddings [B, 192] of which 64 directions say the attributes, turned by a random rotation."""

    def __init__(self) -> None:
        self.turn = torch.linalg.qr(torch.randn(192, 192, generator=torch.Generator().manual_seed(0)))[0]

    def embeds(self, scenes):
        labels, _, _ = attribute_targets(scenes)
        says = [F.one_hot(values.clamp(min=0), 9) * (values != IGNORE)[:, None] for values in labels.values()]
        said = torch.cat(says, dim=1).float()
        return F.normalize(F.pad(said, (0, 192 - said.shape[1])), dim=1) @ self.turn


def test_unknown_stages_are_named(tmp_path):
    with pytest.raises(ValueError, match="vae"):
        tiny.train_tiny(tmp_path, ["vae"])


def test_fewer_steps_shorten_every_phase_and_more_make_none_of_several_longer():
    counts = [phase.training.steps for phase in tiny.shortened(PHASES["decoder"], 1500)]
    assert counts == [1000, 1500, 1500, 1500, 1000]
    assert [phase.training.steps for phase in tiny.shortened(PHASES["prior"], 1500)] == [1500]
    assert tiny.shortened(PHASES["clip"], None) == list(PHASES["clip"])


def test_an_objective_is_known_by_one_name():
    assert objective_class("shapes-decoder") is ShapesDecoderObjective
    assert register_objective("shapes-decoder")(ShapesDecoderObjective) is ShapesDecoderObjective
    with pytest.raises(ValueError, match="there is an objective 'prior' already"):
        register_objective("prior")(ShapesDecoderObjective)
    with pytest.raises(ValueError, match="there is no objective 'vae'"):
        objective_class("vae")
