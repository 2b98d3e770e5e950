"""Collections of images: the same samples whatever they are kept in, and bad ones named."""

import io
import json

import pytest
from own_data import COLORS, FILES, png, write_dataset, write_folder, write_shard
from PIL import Image

from unclip.unclip_core.data.decoding import decode_image
from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.data.samples import BadSample, samples, summary


def by_caption(collection):
    return {sample.caption: sample.image.getpixel((0, 0)) for sample in samples(collection)}


EXPECTED = {f"the image {name}": color for name, color in COLORS.items()}


def test_a_folder_with_subfolders(tmp_path):
    below = {("deep/" + name if name[0] == "b" else name): data for name, data in FILES.items()}
    collection = open_images(write_folder(tmp_path, below | {".hidden/x.png": FILES["a.png"]}))
    assert by_caption(collection) == EXPECTED
    assert [sample.name for sample in samples(collection)] == ["a.png", "c.png", "deep/b.png"]


def test_shards(tmp_path):
    write_shard(tmp_path / "0.tar", {name: data for name, data in FILES.items() if name[0] in "ab"})
    write_shard(
        tmp_path / "1.tar",
        {"x/c.png": FILES["c.png"], "x/c.json": json.dumps({"caption": "the image c"}).encode(), "x/c.cls": b"3"},
    )
    assert by_caption(open_images(tmp_path)) == EXPECTED
    assert len(open_images(tmp_path / "0.tar")) == 2


def test_a_saved_dataset(tmp_path):
    collection = open_images(write_dataset(tmp_path / "d", [(FILES[f"{n}.png"], f"the image {n}") for n in COLORS]))
    assert by_caption(collection) == EXPECTED
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_from_disk(str(tmp_path / "d"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    assert by_caption(open_images(tmp_path / "splits")) == EXPECTED


def test_bad_samples_are_left_out_and_named(tmp_path):
    damaged = {
        "cut.png": png((9, 9, 9), size=(99, 99))[:120],
        "cut.txt": b"cut",
        "none.png": FILES["a.png"],
        "odd.png": FILES["a.png"],
        "odd.txt": b"\xff\xfe\xff",
        "text.jpg": b"no image",
        "text.txt": b"text",
    }
    bad = {}
    collection = open_images(write_folder(tmp_path / "f", FILES | damaged))
    assert len(list(samples(collection, bad))) == 3 and set(bad) == {"cut.png", "none.png", "odd.png", "text.jpg"}
    assert "4 of 7" in summary(bad, collection) and "no caption" in summary(bad, collection)
    bad = {}
    without = list(samples(collection, bad, captions=False))
    assert "none.png" not in bad and [sample.caption for sample in without if sample.name == "none.png"] == [""]


def test_a_shard_that_breaks_off_keeps_what_stands_before(tmp_path):
    path = write_shard(tmp_path / "0.tar", FILES)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(FILES["c.png"]) + 20])
    bad = {}
    # The captions stand behind the images in this shard.
    collection = open_images(path)
    assert [sample.name for sample in samples(collection, bad, captions=False)] == ["0.tar/a", "0.tar/b"]
    assert len(bad) >= 1 and all("shard" in reason for reason in bad.values())


def test_a_dataset_with_a_bad_row(tmp_path):
    bad = {}
    collection = open_images(write_dataset(tmp_path / "d", [(b"junk", "x"), (FILES["a.png"], "y")]))
    assert [sample.caption for sample in samples(collection, bad)] == ["y"] and set(bad) == {"d[0]"}


def test_sixteen_bits_a_pixel_keep_their_shades():
    file = io.BytesIO()
    deep = Image.new("I;16", (3, 1))
    for x, level in enumerate((0, 0x8080, 0xFFFF)):
        deep.putpixel((x, 0), level)
    deep.save(file, "PNG")
    image = decode_image(file.getvalue(), "x")
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_transparency_lies_over_white_and_bombs_are_refused(monkeypatch):
    assert decode_image(png((255, 0, 0, 0), "RGBA"), "x").getpixel((0, 0)) == (255, 255, 255)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(BadSample, match="x: the image cannot be read"):
        decode_image(FILES["a.png"], "x")


def test_fingerprints_follow_the_files(tmp_path):
    collection = open_images(write_folder(tmp_path, FILES))
    before = collection.fingerprint()
    assert open_images(tmp_path).fingerprint() == before
    (tmp_path / "a.txt").write_bytes(b"another")
    assert collection.fingerprint() != before


def test_nothing_to_read_is_said(tmp_path):
    with pytest.raises(ValueError, match="no image below"):
        open_images(tmp_path)
    with pytest.raises(ValueError, match="no data at"):
        open_images(tmp_path / "nowhere")
    write_shard(tmp_path / "0.tar", {"a.txt": b"a"})
    collection = open_images(tmp_path)
    with pytest.raises(BadSample, match="no image"):
        collection.read(0)


def test_of_several_captions_the_first_that_is_not_empty_is_the_images(tmp_path):
    files = {"a.png": FILES["a.png"], "a.json": json.dumps({"captions": ["", "a cat", "a pet"]}).encode()}
    write_shard(tmp_path / "0.tar", files)
    collection = open_images(tmp_path)
    assert collection.read(0).caption == collection.caption(0) == "a cat" and collection.captions(0) == [
        "a cat",
        "a pet",
    ]
    listed = open_images(write_dataset(tmp_path / "d", [(FILES["a.png"], ["", "a cat"]), (FILES["b.png"], ["a dog"])]))
    assert [listed.read(0).caption, listed.caption(0), listed.caption(1)] == ["a cat", "a cat", "a dog"]
