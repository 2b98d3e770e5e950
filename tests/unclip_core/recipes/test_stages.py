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
from unclip.unclip_core.families.loading import BUNDLED, load_model
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet, UpsamplerParams
from unclip.unclip_core.recipes.shapes import gates
from unclip.unclip_core.recipes.shapes import recipe as tiny
from unclip.unclip_core.recipes.shapes.batches import WorldBatches
from unclip.unclip_core.recipes.shapes.clip import (
    IGNORE,
    ClipPhase,
    ClipTraining,
    attribute_targets,
    contrastive_loss,
)
from unclip.unclip_core.recipes.shapes.decoder import (
    DecoderPhase,
    DecoderTraining,
    blurred,
    foreground_weight,
    true_boxes,
)
from unclip.unclip_core.recipes.shapes.loop import LoopConfig
from unclip.unclip_core.recipes.shapes.prior import PriorTraining, embedding_statistics
from unclip.unclip_core.recipes.shapes.upsampler import FIRST, UpsamplerTraining
from unclip.unclip_core.recipes.shapes.vocabulary import bpe_merges
from unclip.unclip_core.train.optimizer import MasterOptimizer
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


def losses_on_one_batch(training: nn.Module, steps: int, lr: float) -> list[float]:
    """Train on what step 0 draws, with its times and noise."""
    optimizer = MasterOptimizer(training, lr, weight_decay=0.0, ema=0.9)
    found = []
    for step in range(steps):
        loss = training.loss(0)["loss"]
        loss.backward()
        optimizer.step(lr, step)
        found.append(float(loss.detach()))
    return found


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
    loss = contrastive_loss(3 * images, texts, wrong, torch.tensor(scale))
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


@pytest.mark.parametrize("shared", [False, True])
def test_clip_overfits_a_batch(adapter, shared):
    torch.manual_seed(0)
    phase = ClipPhase(LoopConfig(steps=1), batch=8, shape_weight=3.0, said_weight=1.0, shared_heads=shared)
    training = ClipTraining(build_open_clip(adapter.config), adapter.config, phase, seed=0)
    found = losses_on_one_batch(training, 60, 3e-3)
    assert found[-1] < 0.45 * found[0]
    assert (training.heads is training.text_heads) == shared


def test_prior_overfits_a_batch(adapter):
    batches = WorldBatches(adapter, 8, seed=0, pair_fraction=0.5, empty_captions=0.1)
    torch.manual_seed(0)
    net = PriorTransformer(
        PriorParams(width=48, layers=2, heads=3, head_dim=16, embed_dim=12, text_width=32, text_tokens=32)
    )
    mean, std = embedding_statistics(batches, 4)
    net.clip_mean.data.copy_(mean)
    net.clip_std.data.copy_(std)
    found = losses_on_one_batch(PriorTraining(net, batches, seed=0), 100, 3e-3)
    assert found[0] > 0.5
    assert found[-1] < 0.1 * found[0]


def test_decoder_overfits_a_batch(adapter):
    batches = WorldBatches(adapter, 4, seed=0, pair_fraction=0.5, empty_captions=0.0)
    torch.manual_seed(0)
    conditioner = MapConditionerParams(
        embed_dim=12, hidden=64, time_embed_dim=32, map_channels=(0, 8), map_sizes=(0, 8)
    )
    net = DecoderNet(DecoderParams(conditioner=conditioner, unet=unet(3, (0, 8)), image_size=32))
    found = losses_on_one_batch(DecoderTraining(net, batches, seed=0), 150, 5e-3)
    assert found[-1] < 0.05 * found[0]


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
    training = DecoderTraining(framed_decoder(), batches, seed=0, true_boxes=share)
    given = []
    training.net.register_forward_pre_hook(lambda module, arguments: given.append(arguments[2]["boxes"]))
    dropped = []
    condition = training.net.condition
    training.net.condition = lambda *args, drop_image, **rest: (
        dropped.append(drop_image),
        condition(*args, drop_image=drop_image, **rest),
    )[1]
    training.loss(0)
    wanted, present = true_boxes(batches.draw(0).scenes, 2)
    moved = (given[0] == wanted).all(dim=2)
    assert dropped[0].any() and not dropped[0].all()
    assert torch.equal(moved, present & ~dropped[0][:, None] if share else torch.zeros_like(present))


@pytest.mark.parametrize("still", [False, True])
def test_boxes_that_are_still_do_not_learn(adapter, still):
    batches = WorldBatches(adapter, 4, seed=0, pair_fraction=0.5, empty_captions=0.0)
    training = DecoderTraining(framed_decoder(), batches, seed=0, true_boxes=0.5, still=still)
    frames = training.net.conditioner.frames
    boxes, canvases = (layer.weight.detach().clone() for layer in (frames.boxes, frames.canvases))
    losses_on_one_batch(training, 1, 1e-2)
    assert torch.equal(frames.boxes.weight, boxes) == still
    assert not torch.equal(frames.canvases.weight, canvases)


def test_a_phase_starts_from_the_weights_of_the_one_before(tmp_path, monkeypatch):
    """What stands in the folder is not trained again; the next phase begins where it ended."""
    monkeypatch.setattr(tiny, "check_clip", tiny.write_index)
    (tmp_path / "clip.safetensors").write_bytes((BUNDLED / "clip.safetensors").read_bytes())
    (tmp_path / "decoder-1.safetensors").write_bytes((BUNDLED / "decoder.safetensors").read_bytes())
    loop = LoopConfig(steps=1, lr=0.0, warmup=0)
    monkeypatch.setattr(tiny, "DECODER_PHASES", (DecoderPhase(loop, batch=2), DecoderPhase(loop, batch=2)))
    tiny.train_tiny(tmp_path, ["decoder"], steps=1)
    assert not (tmp_path / "decoder-1.log.jsonl").exists() and not (tmp_path / "decoder-1.state.pt").exists()
    shipped, found = (load_weights(path / "decoder.safetensors")[0] for path in (BUNDLED, tmp_path))
    assert found.keys() == shipped.keys()
    for name, tensor in shipped.items():
        torch.testing.assert_close(found[name].float(), tensor.float(), rtol=2**-7, atol=1e-6)


def test_upsampler_overfits_a_batch():
    torch.manual_seed(0)
    params = UpsamplerParams(**asdict(unet(6, (0, 0))) | {"patch_size": 4, "norm": "none"}, residual=True, reach=1)
    training = UpsamplerTraining(UpsamplerNet(params), batch=2, seed=0, task=replace(FIRST, size=128, crop=32))
    found = losses_on_one_batch(training, 200, 5e-3)
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


def test_both_upsamplers_are_trained_into_one_model(tmp_path):
    tiny.train_tiny(tmp_path, ["upsampler", "second_upsampler"], steps=1)
    first = load_model(tmp_path).upsampler
    assert first.fitting(255, 300) is first
    assert first.fitting(256, 300) is first.second
    assert first.second.from_size == 256
    measured = json.loads((tmp_path / "second_upsampler-measure.json").read_text())
    assert measured["upsampler"] == pytest.approx(measured["bicubic"], abs=1.0)  # after one step each


def test_nothing_is_built_on_a_clip_that_fails_its_gate(tmp_path, monkeypatch):
    small = [replace(phase, batch=2) for phase in tiny.CLIP_PHASES]
    monkeypatch.setattr(tiny, "CLIP_PHASES", [small[0], small[-1]])
    monkeypatch.setattr(tiny, "check_clip", partial(tiny.check_clip, count=32))
    tiny.train_tiny(tmp_path, ["clip"], steps=1)
    assert (tmp_path / "clip.safetensors").is_file()
    with pytest.raises(CheckpointError, match="gate"):
        tiny.train_tiny(tmp_path, ["prior"], steps=1)
    assert not (tmp_path / "prior.safetensors").exists()


def test_linear_heads_read_what_an_embedding_says_in_plain_words(monkeypatch):
    """Heads are fitted by the attributes themselves; an embedding that holds them one-hot is read without error."""
    clip = WordlyClip()
    monkeypatch.setattr(gates, "_image_embeds", lambda clip, scenes: clip.embeds(scenes))
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
