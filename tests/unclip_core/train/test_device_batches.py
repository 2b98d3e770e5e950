"""Samples that all lie on the device: the same samples, with randomness of the same law, and bad ones named."""

import json
from types import SimpleNamespace

import pytest
import torch
from own_data import write_shard
from own_training import NAMES, config_of, train, write_images

from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.families.native.presets import TINY_DIFFUSION
from unclip.unclip_core.train import run as run_module
from unclip.unclip_core.train.config import Training, config_from_dict
from unclip.unclip_core.train.datasets import ClipDataset, DecoderDataset, PriorDataset
from unclip.unclip_core.train.device_batches import DeviceBatches
from unclip.unclip_core.train.embeds import embed_collection
from unclip.unclip_core.train.loss_config import DecoderLoss, PriorLoss

SIZE = 64


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images, one of them damaged and some with several captions; CLIP; and its embeddings of them."""
    folder = write_images(tmp_path_factory.mktemp("images"), size=SIZE)
    names = sorted(path.stem for path in folder.glob("*.png"))
    (folder / f"{names[3]}.png").write_bytes(b"no image")
    collection, clip = open_images(str(folder)), load_model("bundled (shapes)").clip.adapter
    store = embed_collection(collection, clip, tmp_path_factory.mktemp("store"))
    return SimpleNamespace(collection=collection, clip=clip, store=store, damaged=names[3])


def processes(rank=0, world=1):
    return SimpleNamespace(process_index=rank, num_processes=world, device=torch.device("cpu"))


def batches(samples, rank=0, world=1, steps=(0, 3), rows=None, **training):
    settings = Training(steps=99, batch=8, **training)
    rows = range(samples.count) if rows is None else rows
    return list(DeviceBatches(samples, rows, settings, processes(rank, world)).steps(*steps))


def decoder(world, **loss):
    part = SimpleNamespace(image_size=SIZE, latent_shape=(3, SIZE, SIZE), diffusion=TINY_DIFFUSION["decoder"])
    return DecoderDataset(world.collection, world.store, part, DecoderLoss(**loss))


def test_a_decoders_batch_holds_the_samples_that_reading_gives(world):
    samples = decoder(world, drop_text=0.0, drop_image=0.0)
    (part,) = batches(samples)[0]
    every = [samples.make(row, torch.Generator()) for row in range(samples.count)]
    for place in range(8):
        same = [row for row in every if torch.equal(row["images"], part["images"][place])]
        assert len(same) == 1
        for name in ("image_embeds", "text_embeds", "text_states", "text_mask"):
            assert torch.equal(part[name][place], same[0][name]) and part[name].dtype == same[0][name].dtype
    assert set(part) - {"bad"} == set(every[0]) - {"noise_seed"} | {"noise"}
    assert part["noise"].shape == (8, 3, SIZE, SIZE)


def test_a_dropped_text_is_the_empty_prompt(world):
    samples = decoder(world, drop_text=0.5, drop_image=0.25)
    null, dropped = world.store.null(), []
    for (part,) in batches(samples, steps=(0, 40)):
        dropped.append(torch.stack([part["drop_text"], part["drop_image"]]).float())
        for name, empty in null.items():
            mine = part[name][part["drop_text"]]
            assert torch.equal(mine, empty.expand_as(mine))
            others = part[name][~part["drop_text"]]
            assert name == "text_mask" or not any(torch.equal(row, empty) for row in others)
    assert torch.cat(dropped, dim=1).mean(dim=1) == pytest.approx([0.5, 0.25], abs=0.1)


def test_levels_are_those_of_the_schedule_and_noise_is_normal(world):
    spec: DiffusionSpec = TINY_DIFFUSION["prior"]
    samples = PriorDataset(world.store, spec, PriorLoss(weighting="min_snr", times="logit_normal", times_mean=0.5))
    parts = [part for (part,) in batches(samples, steps=(0, 200))]
    times, noise = (torch.cat([part[name] for part in parts]) for name in ("times", "noise"))
    table = spec.table.float()
    for part in parts[:3]:
        assert torch.equal(part["alpha_bar"], table[part["times"]])
        snr = part["alpha_bar"].double() / (1 - part["alpha_bar"].double())
        assert torch.allclose(part["weight"].double(), snr.clamp(max=5.0), rtol=1e-4)  # x0 is what this prior says
    logits = torch.logit((times.double() + 0.5) / spec.train_steps)
    assert logits.mean() == pytest.approx(0.5, abs=0.1) and logits.std() == pytest.approx(1.0, abs=0.1)
    assert noise.mean().abs() < 0.02 and noise.std() == pytest.approx(1.0, abs=0.02)
    assert len(torch.unique(noise[:, 0])) == len(noise)


def test_clip_gets_each_of_an_images_captions(world, tmp_path):
    folder = write_images(tmp_path / "images", count=4, size=SIZE)
    files = {}
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        said = [f"{NAMES[number]} {word}" for word in ("one", "two", "three")[: 1 + number % 3]]
        files |= {path.name: path.read_bytes(), f"{path.stem}.json": json.dumps({"captions": said}).encode()}
    collection = open_images(str(write_shard(tmp_path / "0.tar", files)))
    samples = ClipDataset(collection, world.clip)
    seen = {tuple(row.tolist()) for (part,) in batches(samples, steps=(0, 40)) for row in part["ids"]}
    wanted = [text for number in range(4) for text in collection.captions(number)]
    assert seen == {tuple(row.tolist()) for row in world.clip.tokenize(wanted)}
    (part,) = batches(samples)[0]
    every = [samples.make(row, torch.Generator())["pixels"] for row in range(4)]
    assert all(any(torch.equal(pixels, own) for own in every) for pixels in part["pixels"])


@pytest.fixture(scope="module")
def several(world, tmp_path_factory):
    """Four images of one, two, three and again one caption, and their embeddings."""
    folder, files = write_images(tmp_path_factory.mktemp("several"), count=4, size=SIZE), {}
    for number, path in enumerate(sorted(folder.glob("*.png"))):
        said = [f"{NAMES[number]} {word}" for word in ("one", "two", "three")[: 1 + number % 3]]
        files |= {path.name: path.read_bytes(), f"{path.stem}.json": json.dumps({"captions": said}).encode()}
    collection = open_images(str(write_shard(tmp_path_factory.mktemp("shard") / "0.tar", files)))
    store = embed_collection(collection, world.clip, tmp_path_factory.mktemp("store"))
    return SimpleNamespace(collection=collection, store=store, clip=world.clip)


def said_by(several, number):
    return several.clip.encode_text(several.collection.captions(number))


def test_a_store_keeps_every_caption_and_chance_picks_one(several):
    store = several.store
    assert store.rows == 4 and store.sources() == [0, 1, 2, 3]
    for number in range(4):
        true, chance = said_by(several, number), torch.Generator().manual_seed(0)
        first = store.row(number)
        torch.testing.assert_close(first["text_embeds"], true.embeds[0], rtol=0, atol=1e-5)
        states = (true.states * true.mask[..., None]).half().float()
        torch.testing.assert_close(first["text_states"], states[0], rtol=0, atol=2e-3)
        rows = [store.row(number, chance) for _ in range(60)]
        found = {int((row["text_embeds"] - true.embeds).abs().amax(dim=1).argmin()) for row in rows}
        assert found == set(range(len(true.embeds)))
        assert all(int((row["text_embeds"] - true.embeds).abs().amax(dim=1).min() * 1e5) == 0 for row in rows)
        assert all(torch.equal(row["image_embeds"], first["image_embeds"]) for row in rows)


def test_on_the_device_each_caption_comes_with_its_own_image(several):
    samples = PriorDataset(several.store, TINY_DIFFUSION["prior"], PriorLoss(drop_text=0.0))
    wanted = {(number, k) for number in range(4) for k in range(len(said_by(several, number).embeds))}
    rows = [several.store.row(number) for number in range(4)]
    seen = set()
    for (part,) in batches(samples, steps=(0, 40)):
        for image, text, mask in zip(part["image_embeds"], part["text_embeds"], part["text_mask"], strict=True):
            number = next(n for n, row in enumerate(rows) if torch.equal(row["image_embeds"], image))
            true = said_by(several, number)
            k = int((true.embeds - text).abs().amax(dim=1).argmin())
            assert torch.equal(mask, true.mask[k])
            seen.add((number, k))
    assert seen == wanted


def test_clip_takes_the_embeddings_of_an_image_tower_that_stays(world):
    samples = ClipDataset(world.collection, world.clip, world.store)
    (part,) = batches(samples)[0]
    every = [samples.make(row, torch.Generator()) for row in range(samples.count)]
    pairs = [(row["image_embeds"], row["ids"]) for row in every]
    assert set(part) - {"bad"} == {"image_embeds", "ids"}
    for embed, ids in zip(part["image_embeds"], part["ids"], strict=True):
        assert sum(torch.equal(embed, e) and torch.equal(ids, i) for e, i in pairs) == 1


def test_several_processes_and_a_resumed_one_see_the_same(world):
    samples = decoder(world)
    alone = batches(samples, steps=(0, 4))
    shared = [batches(samples, rank, 2, steps=(0, 4)) for rank in range(2)]
    later = batches(samples, steps=(2, 4))
    parted = batches(samples, steps=(0, 4), accumulation=2)
    for step in range(4):
        for name, value in alone[step][0].items():
            if name == "bad":
                continue
            assert torch.equal(torch.cat([shared[0][step][0][name], shared[1][step][0][name]]), value)
            assert torch.equal(torch.cat([part[name] for part in parted[step]]), value)
            assert step < 2 or torch.equal(later[step - 2][0][name], value)
    assert not torch.equal(alone[0][0]["noise"], alone[1][0]["noise"])


def test_rows_that_are_kept_aside_never_come_and_damaged_ones_are_named(world):
    samples = ClipDataset(world.collection, world.clip)
    kept = list(range(0, samples.count, 2))
    parts = batches(samples, steps=(0, 20), rows=kept)
    own = [samples.make(row, torch.Generator())["pixels"] for row in kept if not _is_bad(samples, row, world)]
    assert all(any(torch.equal(p, o) for o in own) for (part,) in parts for p in part["pixels"])
    every = batches(samples, steps=(0, 2))
    assert [world.damaged in name for name, _ in every[0][0]["bad"]] == [True] and "bad" not in every[1][0]
    with pytest.raises(ValueError, match=r"None of the 1 samples can be used"):
        batches(samples, rows=[row for row in range(samples.count) if _is_bad(samples, row, world)])


def _is_bad(samples, row, world):
    return world.damaged in samples.collection.name(samples.sources()[row])


def test_processes_that_read_give_the_same_tables(world):
    samples = decoder(world)
    alone, read = batches(samples), batches(samples, workers=2)
    assert all(torch.equal(alone[2][0][name], read[2][0][name]) for name in alone[2][0])


@pytest.mark.parametrize("stage", ["clip", "prior", "decoder"])
def test_a_stage_is_trained_so(world, tmp_path, monkeypatch, stage):
    made = []
    monkeypatch.setattr(run_module, "DeviceBatches", lambda *a: made.append(DeviceBatches(*a)) or made[-1])
    images, output = write_images(tmp_path / "images"), tmp_path / "model"
    if stage != "clip":
        assert train("clip", images, output, config_of("clip", 2)) == 0
    assert train(stage, images, output, config_of(stage, 3, on_device=True, held_out=4)) == 0
    assert len(made) == 1 and (output / f"{stage}.safetensors").is_file()


def test_an_upsampler_is_refused():
    with pytest.raises(ValueError, match="goes with CLIP, prior and decoder"):
        config_from_dict({"training": {"steps": 3, "on_device": True}}, "upsampler")
