"""Samples kept aside: the same for every stage, never trained on, measured as they should be; noise by its seed."""

import json

import pytest
import torch
from own_training import config_of, train, write_images
from PIL import Image

from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.train import datasets
from unclip.unclip_core.train.batch_sampler import generator_of
from unclip.unclip_core.train.held_out import retrieval, split
from unclip.unclip_core.train.noise_levels import noise_of


class Rows:
    """A stage that has the samples with these numbers."""

    noise_shape = None

    def __init__(self, sources):
        self.own, self.count = sources, len(sources)

    def make(self, index, generator):
        return {"x": torch.tensor(self.own[index])}

    def sources(self):
        return self.own


class Named:
    """A collection of so many images."""

    def __init__(self, count, prefix="image"):
        self.count, self.prefix = count, prefix

    def __len__(self):
        return self.count

    def name(self, index):
        return f"{self.prefix} {index}"


def values(chosen):
    return [int(chosen.make(index, generator_of(1))["x"]) for index in range(chosen.count)]


def test_every_stage_keeps_the_same_images_aside():
    rest, held = split(Rows(range(40)), Named(40), 8)
    assert held.count == 8 and sorted(values(rest) + values(held)) == list(range(40))
    others = [number for number in range(40) if number % 3]
    rest_of_others, held_of_others = split(Rows(others), Named(40), 8)
    assert set(values(held_of_others)) == set(values(held)) & set(others)
    assert not set(values(rest_of_others)) & set(values(held))
    for wrong in (40, 1000):
        with pytest.raises(ValueError, match=f"training.held_out {wrong} leaves 0 samples to train on"):
            split(Rows(range(40)), Named(40), wrong)


def test_added_images_bring_no_trained_one_aside():
    rest, held = split(Rows(range(1000)), Named(1000), 100)
    more_rest, more_held = split(Rows(range(1050)), Named(1050), 100)
    assert not set(values(more_held)) & set(values(rest))
    assert len(set(values(more_held)) & set(values(held))) > 80  # 5 % are new, and so about 5 of those aside
    other = split(Rows(range(1000)), Named(1000, "photo"), 100)[1]
    assert len(set(values(other)) & set(values(held))) < 40  # by chance 10


def test_retrieval_counts_equal_texts_as_one():
    images = torch.eye(4)
    texts = torch.eye(4)[[0, 1, 3, 2]]
    ids = torch.tensor([[1], [2], [3], [4]])
    assert retrieval(images, texts, ids) == {"image_to_text": 0.5, "text_to_image": 0.5}
    ids = torch.tensor([[1], [2], [3], [3]])
    assert retrieval(images, texts, ids) == {"image_to_text": 1.0, "text_to_image": 1.0}


def test_noise_is_a_samples_own_whatever_its_batch():
    seeds = torch.tensor([5, 2**61, 7])
    noise = noise_of(seeds, (3, 40, 40), "cpu")
    for row, seed in enumerate(seeds):
        assert torch.equal(noise[row], noise_of(seed[None], (3, 40, 40), "cpu")[0])
    assert abs(float(noise.mean())) < 0.03 and float(noise.std()) == pytest.approx(1.0, abs=0.02)
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.05


def measures(folder, stage):
    lines = (folder / "training" / stage / "held_out.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_all_stages_measure_what_they_were_not_shown(tmp_path, monkeypatch):
    images, output = write_images(tmp_path / "images"), tmp_path / "m"
    collection = open_images(images)
    held = split(Rows(range(16)), collection, 4)[1].rows
    shown = set()
    make = datasets.ClipDataset.make

    def watched(self, index, generator):
        shown.add(index)
        return make(self, index, generator)

    monkeypatch.setattr(datasets.ClipDataset, "make", watched)
    for broken in sorted(images.glob("*.png"))[held[0]], sorted(images.glob("*.txt"))[held[1]]:
        broken.write_bytes(b"")  # what is held out may be bad too
    config = config_of("clip", 4, batch=6, held_out=4, sample_every=4)
    assert train("clip", images, output, config | {"training": config["training"] | {"sample_every": 0}}) == 0
    assert shown == set(range(16)) and len(measures(output, "clip")) == 1  # measured at the end alone
    shown.clear()
    measured = {"clip": {"image_to_text", "text_to_image"}, "prior": {"loss", "mse", "cosine", "text_cosine"},
                "decoder": {"loss", "mse"}, "upsampler": {"loss", "mse"}}  # fmt: skip
    for stage, names in measured.items():
        folder = output if stage != "clip" else tmp_path / "another"
        config = config_of(stage, 2, batch=6, held_out=4, sample_every=2)
        assert train(stage, images, folder, config) == 0
        (line,) = measures(folder, stage)
        assert set(line) == names | {"step", "time"} and all(0 <= abs(line[name]) < 10 for name in names)
        sheet = Image.open(folder / "training" / stage / "samples" / "00000002.png")
        assert sheet.height == (48 if stage == "upsampler" else 32) and sheet.width >= 32
    assert len(held) == 4 and len(collection) == 16


@pytest.mark.slow
def test_held_out_samples_are_not_trained_on(tmp_path, monkeypatch):
    images = write_images(tmp_path / "images")
    held = set(split(Rows(range(16)), open_images(images), 4)[1].rows)
    trained = set()
    make = datasets.UpsamplerDataset.make
    rows = {number: f"{name}.png" for number, name in enumerate(sorted(p.stem for p in images.glob("*.png")))}
    assert len(rows) == 16

    def watched(self, index, generator):
        trained.add(index)
        return make(self, index, generator)

    monkeypatch.setattr(datasets.UpsamplerDataset, "make", watched)
    config = config_of("upsampler", 6, held_out=4)
    monkeypatch.setattr("unclip.unclip_core.train.run.mean_losses", lambda *_: {})
    assert train("upsampler", images, tmp_path / "m", config) == 0
    assert trained == set(range(16)) - held
