"""What trainings keep on the disk, damaged: each is one sentence; and the same data under another name goes on."""

import json
import os
import shutil

import pytest
import torch
from own_training import config_of, curve, train, write_images
from safetensors.torch import load_file, save_file

from unclip.unclip_core.train.config import read_config
from unclip.unclip_core.train.embeds import EmbeddingStore, Workers, embed_collection
from unclip.unclip_core.train.state import RunFiles, cut_log, read_state
from unclip.unclip_core.weights.files import CheckpointError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def two_steps(images, tmp_path_factory):
    """A folder with an upsampler of two steps, trained once."""
    folder = tmp_path_factory.mktemp("trained") / "m"
    assert train("upsampler", images, folder, config_of("upsampler", 2)) == 0
    return folder


@pytest.fixture
def trained(two_steps, tmp_path):
    """A copy of it to damage, and its configuration of three steps."""
    return shutil.copytree(two_steps, tmp_path / "m"), config_of("upsampler", 3)


def change(state, name, value):
    return {key: kept for key, kept in state.items() if key != name} | ({} if value is None else {name: value})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "many"), ("step", -1), ("step", None), ("seconds", float("nan")), ("parameters", [1]),
        ("parameters", {"net.x": 3}), ("average", None), ("optimizer", 5), ("sums", {"loss": "x"}), ("bad", {1: 2}),
        ("format", {}), ("scaler", 3), ("buffers", None),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_one_sentence(images, trained, name, value):
    folder, config = trained
    path = folder / "training" / "upsampler" / "state.pt"
    torch.save(change(torch.load(path, weights_only=True), name, value), path)
    with pytest.raises(CheckpointError, match=r"The checkpoint .* to begin anew"):
        train("upsampler", images, folder, config)


def test_a_checkpoint_of_other_shapes_or_moments_is_one_sentence(images, trained):
    folder, config = trained
    path = folder / "training" / "upsampler" / "state.pt"
    state = torch.load(path, weights_only=True)
    first = next(iter(state["parameters"]))
    for damaged in (
        change(state, "parameters", state["parameters"] | {first: torch.zeros(1)}),
        change(state, "optimizer", {"adamw": {"state": {}, "param_groups": []}}),
        change(state, "optimizer", {"adamw": 7}),
    ):
        torch.save(damaged, path)
        with pytest.raises(CheckpointError, match="is of another"):
            train("upsampler", images, folder, config)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(RunFiles(path.parent))


@pytest.mark.parametrize("text", ["", "[1]", "{", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_damaged_settings_are_one_sentence(images, trained, text):
    folder, config = trained
    kept = folder / "training" / "upsampler" / "config.json"
    kept.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="config.json"):
        train("upsampler", images, folder, config)


def test_a_damaged_log_is_told_and_goes_on(trained, images, capsys):
    folder, config = trained
    log = folder / "training" / "upsampler" / "log.jsonl"
    log.write_text('[1]\n{"loss": 1}\n{"step": "x"}\n' + log.read_text() + '{"step": 3, "lo')
    assert train("upsampler", images, folder, config) == 0
    assert list(curve(folder, "upsampler")) == [1, 2, 3]
    assert "4 lines of" in capsys.readouterr().out
    cut_log(RunFiles(folder / "nowhere"), 3)


def test_the_same_data_under_another_name_goes_on(trained, images, monkeypatch):
    folder, config = trained
    link = folder.parent / "linked"
    link.symlink_to(images, target_is_directory=True)
    monkeypatch.chdir(images.parent)
    for steps, name in enumerate((f"{images}/", os.path.relpath(images), f"./{images.name}", link), start=3):
        config["training"]["steps"] = steps
        assert train("upsampler", name, folder, config) == 0
    with pytest.raises(ValueError, match="data was"):
        train("upsampler", write_images(folder.parent / "others", 4), folder, config)


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path):
    text = "[training]\nsteps = 3\n"
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_config(tmp_path / "a.toml", "clip").training.steps == 3
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"training": {"steps": 3}}).encode())
    assert read_config(tmp_path / "a.json", "clip").training.steps == 3
    for name, data in (("b.toml", b"\xff"), ("b.json", b"[" * 100_000), ("c.toml", b"a = " + b"[" * 100_000)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=name):
            read_config(tmp_path / name, "clip")


class MadeUpClip:
    """A CLIP of two numbers: an image's mean level and a text's length."""

    def __init__(self):
        self.model = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.model.weight)
        torch.nn.init.zeros_(self.model.bias)
        self.image_size, self.context_length, self.batches = 8, 4, []

    def read_vision(self):
        pass

    def encode_image(self, images):
        self.batches.append(len(images))
        return torch.stack([images.mean(dim=(1, 2, 3)), images[..., 0].mean(dim=(1, 2))], dim=1)

    def encode_texts(self, texts):
        return self.encode_text(texts)

    def encode_text(self, texts):
        from unclip.unclip_core.clip.adapter import TextCondition

        lengths = torch.tensor([[float(len(text)), 1.0] for text in texts])
        return TextCondition(lengths, torch.zeros(len(texts), 4, 3), torch.ones(len(texts), 4, dtype=torch.bool))


def stored(images, folder, **workers):
    from unclip.unclip_core.data.opening import open_images

    clip = MadeUpClip()
    return embed_collection(open_images(images), clip, folder, captions=False, workers=Workers(**workers)), clip


def test_batches_and_readers_leave_the_embeddings(images, tmp_path):
    one, clip = stored(images, tmp_path / "one")
    assert clip.batches == [16]
    many, clip = stored(images, tmp_path / "many", readers=2, batch=5)
    assert clip.batches == [5, 5, 5, 1]
    for row in range(16):
        for name, value in one.row(row).items():
            assert torch.equal(value, many.row(row)[name])
        assert one.source(row) == many.source(row) == row


def test_a_damaged_store_is_one_sentence(images, tmp_path):
    store, _ = stored(images, tmp_path / "e")
    index = store.folder / "index.json"
    good = json.loads(index.read_text())
    for wrong in ([], {**good, "counts": ["x"]}, {**good, "counts": [-1]}, {**good, "tokens": 10**12},
                  {**good, "null": "../../x"}, {**good, "mean": [1.0]}, {"counts": []}):  # fmt: skip
        index.write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match="Delete"):
            EmbeddingStore(store.folder)
    index.write_text(json.dumps({**good, "counts": [99]}))
    with pytest.raises(CheckpointError, match="delete the file"):
        EmbeddingStore(store.folder).row(98)
    index.write_text(json.dumps(good))
    shard = store.folder / "embeddings-000000.safetensors"
    tensors = load_file(shard)
    moved = shard.parent / "aside"
    moved.mkdir()
    save_file({name: value for name, value in tensors.items() if name != "text_mask"}, moved / shard.name)
    (moved / "index.json").write_text(json.dumps(good))
    with pytest.raises(CheckpointError, match="delete the file"):
        EmbeddingStore(moved).row(0)
