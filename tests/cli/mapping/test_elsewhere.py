"""Workers elsewhere, in another current folder and at another time: the paths they get, and data that was changed."""

import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

from PIL import Image

from unclip.cli.mapping import shares
from unclip.cli.mapping.engine import Pool
from unclip.cli.mapping.job import Job
from unclip.cli.mapping.results import Output
from unclip.cli.mapping.tasks import Setup
from unclip.unclip_core.clip.adapter import TextCondition
from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.evaluate.gathering import Gathered
from unclip.unclip_core.evaluate.generation import Draw
from unclip.unclip_core.evaluate.measurer import Plan
from unclip.unclip_core.train import run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder of who types the command, with images and a model folder."""
    for name in ("here/images", "here/model", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b", "c"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / f"here/images/{name}.png")
        (tmp_path / f"here/images/{name}.txt").write_text("a cat")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def worker(here, monkeypatch):
    """One in place of Ray's; `before` is called as it starts."""
    found = SimpleNamespace(before=lambda: None)

    def spread(pool, work, make):
        os.chdir(here.parent / "elsewhere")
        found.before()
        handler = make()
        for number, share in enumerate(work):
            yield number, handler(share)
        os.chdir(here)

    monkeypatch.setattr(shares, "spread", spread)
    monkeypatch.setattr(shares, "connected", lambda pool: nullcontext())
    return found


def add_an_image(here):
    Image.new("RGB", (64, 64), "blue").save(here / "images/a.png")


def evaluate(monkeypatch):
    plans = []
    measurer = SimpleNamespace(measure=lambda *share: Gathered())
    monkeypatch.setattr(shares, "Measurer", lambda plan, images: plans.append((plan, len(images))) or measurer)
    loras = (("l.safetensors", 0.5), ("s3://bucket/l.safetensors", 1.0))
    plan = Plan("model", "images", Draw(batch=2), loras, "ViT-B-32", "weights.pt")
    shares.evaluate(Pool(), plan, open_images("images"), 2, {})
    return plans


def test_evaluations_find_what_was_typed(here, worker, monkeypatch):
    ((plan, count),) = evaluate(monkeypatch)
    assert (plan.model, plan.data, plan.clip_weights) == tuple(str(here / n) for n in ("model", "images", "weights.pt"))
    assert plan.loras == ((str(here / "l.safetensors"), 0.5), ("s3://bucket/l.safetensors", 1.0))
    assert (count, plan.device, plan.clip) == (2, "cpu", "ViT-B-32")


def test_evaluations_of_images_that_were_changed_meanwhile_are_refused(here, worker, monkeypatch):
    """Else the numbers of the samples would name other images."""
    worker.before = lambda: add_an_image(here)
    with pytest.raises(ValueError, match="images' is not what this run was begun with"):
        evaluate(monkeypatch)


class Clip:
    """A CLIP that sees nothing, so that no weights are read."""

    image_size, context_length = 8, 2

    def __init__(self):
        import torch

        self.model = self.module = torch.nn.Linear(1, 1)
        for parameter in self.model.parameters():
            torch.nn.init.ones_(parameter)
        self.adapter = self

    def read_vision(self):
        pass

    def encode_image(self, images):
        return images.mean(dim=(1, 2))

    def encode_text(self, prompts):
        import torch

        count = len(prompts)
        return TextCondition(torch.ones(count, 3), torch.ones(count, 2, 3), torch.ones(count, 2, dtype=torch.bool))

    encode_texts = encode_text


@pytest.fixture
def embed(monkeypatch):
    """`unclip embed --ray`, and the models that were asked for."""
    from functools import partial

    from unclip.unclip_core.families import loading

    models = []
    for module in (run, loading):
        monkeypatch.setattr(module, "load_model", lambda path: models.append(path) or SimpleNamespace(clip=Clip()))
    write = partial(shares.write_shards, Pool(), "images", "model", 4)
    return models, lambda: run.embed("images", "out", "model", "cpu", write=write)


def test_embeddings_find_what_was_typed(here, worker, embed):
    models, call = embed
    assert call() == 0
    assert models == ["model", str(here / "model")]
    assert len(list((here / "out").rglob("*.safetensors"))) >= 1


def test_embeddings_of_images_that_were_changed_meanwhile_are_refused(here, worker, embed):
    worker.before = lambda: add_an_image(here)
    with pytest.raises(ValueError, match="images' or the model's CLIP is not what this run was begun with"):
        embed[1]()
    assert not list((here / "out").rglob("*.safetensors"))


def test_a_job_anywhere_names_no_relative_path(here):
    job = Job(Setup("w.json", model="model", data="images"), "t.csv", Output("out")).anywhere()
    setup = job.setup
    assert [setup.task, setup.model, setup.data, setup.folder, job.data, job.output.place] == [
        str(here / name) if name else str(here) for name in ("w.json", "model", "images", "", "t.csv", "out")
    ]


def test_ray_reads_a_table_by_its_absolute_path(here, monkeypatch):
    ray = pytest.importorskip("ray.data")
    from unclip.cli.mapping.sources import read_table

    (here / "t.parquet").touch()
    monkeypatch.setattr(ray, "read_parquet", lambda path: path)
    assert read_table("t.parquet") == str(here / "t.parquet")
    assert read_table("s3://bucket/t.parquet") == "s3://bucket/t.parquet"
