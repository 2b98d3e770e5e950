"""Nothing of a collection is lost in silence: joined, cut and damaged shards, odd names, links, odd formats."""

import io
import json
import os
import struct
import tarfile

import pytest
from own_data import FILES, png, write_dataset, write_folder, write_shard
from PIL import Image

from unclip.unclip_core.data import tar_listing
from unclip.unclip_core.data.decoding import ORIENTATION, decode_image
from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.data.samples import BadSample, samples, summary


def read_all(path, captions=True):
    """Captions of the good samples, and the bad ones."""
    bad = {}
    collection = open_images(path)
    return [sample.caption for sample in samples(collection, bad, captions)], bad, collection


def encoded(format_, mode="RGB", color=(9, 99, 199), **options):
    file = io.BytesIO()
    Image.new(mode, (6, 4), color).save(file, format_, **options)
    return file.getvalue()


# ---- shards ----


def test_joined_shards_are_read_to_their_end(tmp_path):
    first = write_shard(tmp_path / "0", FILES).read_bytes()
    second = write_shard(tmp_path / "1", FILES).read_bytes()
    (tmp_path / "j.tar").write_bytes(first + second)
    captions, bad, collection = read_all(tmp_path / "j.tar")
    assert captions == ["the image a", "the image b", "the image c"] * 2 and not bad
    assert [sample.name for sample in samples(collection)][3] == "j.tar/a (2)"


def test_a_damaged_header_costs_its_own_sample_and_is_told(tmp_path):
    files = dict(sorted(FILES.items()))
    path = write_shard(tmp_path / "0.tar", files)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"b.png") + 3] ^= 0xFF
    path.write_bytes(whole)
    captions, bad, _ = read_all(path)
    assert captions == ["the image a", "the image c"]
    assert any("is damaged in bytes" in reason for reason in bad.values()) and "0.tar/b" in bad


def test_the_very_first_header_may_be_the_damaged_one(tmp_path):
    path = write_shard(tmp_path / "0.tar", dict(sorted(FILES.items())))
    whole = bytearray(path.read_bytes())
    whole[0] ^= 0xFF
    path.write_bytes(whole)
    captions, bad, _ = read_all(path)
    assert captions == ["the image b", "the image c"] and len(bad) == 2


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_have_no_gaps(tmp_path, kind):
    with tarfile.open(tmp_path / "0.tar", "w", format=kind) as tar:
        for name, data in FILES.items():
            member = tarfile.TarInfo("ö" * 120 + name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    captions, bad, _ = read_all(tmp_path / "0.tar")
    assert len(captions) == 3 and not bad


def test_keys_with_dots_and_parts_with_dots(tmp_path):
    files = {
        "lens 3.5mm.png": FILES["a.png"],
        "lens 3.5mm.txt": b"a lens",
        "v1.2_0007.png": FILES["b.png"],
        "v1.2_0007.txt": b"seven",
        "0001.png": FILES["c.png"],
        "0001.txt": b"one",
        "0001.mask.png": FILES["a.png"],
        "0001.cls": b"3",
        "lone.heic": b"?",
    }
    captions, bad, collection = read_all(write_shard(tmp_path / "0.tar", files))
    assert captions == ["a lens", "seven", "one"] and not bad
    assert set(collection.passed_over) == {"0.tar/0001.mask.png", "0.tar/lone.heic"}
    assert "2 further files make no sample" in summary(bad, collection)


def test_compressed_shards_are_told_how_to_be_read(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = len(FILES["a.png"])
        tar.addfile(member, io.BytesIO(FILES["a.png"]))
    for name in ("x.tar.gz", "x.tgz", "x.tar"):
        (tmp_path / name).write_bytes((tmp_path / "x.tar.gz").read_bytes())
        with pytest.raises(ValueError, match="is compressed: unpack it"):
            open_images(tmp_path / name)
        if name != "x.tar.gz":
            (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"x.tar.gz \(it is compressed"):
        open_images(tmp_path)
    write_shard(tmp_path / "y.tar", FILES)
    assert list(read_all(tmp_path)[2].passed_over) == ["x.tar.gz"]


@pytest.mark.parametrize("damage", [None, "cut"])
def test_an_index_beside_a_shard_says_the_same_and_is_made_anew(tmp_path, monkeypatch, damage):
    path = write_shard(tmp_path / "0.tar", FILES)
    if damage:
        path.write_bytes(path.read_bytes()[:3000])
    first = read_all(path, captions=False)[:2]
    index = tar_listing.index_path(path)
    assert index.is_file() and not read_all(tmp_path, captions=False)[2].passed_over

    def scanned(_):
        raise AssertionError("it was scanned again")

    with monkeypatch.context() as patched:
        patched.setattr(tar_listing, "list_tar", scanned)
        assert read_all(path, captions=False)[:2] == first
    good = json.loads(index.read_text())
    outside = {"members": [["a.png", -5, 3]], "links": [], "damage": {}}
    changes = ({"format": 2}, {"file": "1 2"}, {"listing": outside}, {"listing": 3})
    for wrong in ("", "[]", *(json.dumps(good | change) for change in changes)):
        index.write_text(wrong)
        assert read_all(path, captions=False)[:2] == first and json.loads(index.read_text()) == good
    write_shard(path, FILES | {"d.png": FILES["a.png"]})
    assert len(open_images(path)) == 4


def test_a_folder_that_cannot_be_written_does_without_an_index(tmp_path, monkeypatch):
    path = write_shard(tmp_path / "0.tar", FILES)

    def refused(*_):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(os, "replace", refused)
    assert len(open_images(path)) == 3 and os.listdir(tmp_path) == ["0.tar"]


# ---- folders ----


def test_links_are_followed_and_images_beside_shards_are_read(tmp_path):
    write_folder(tmp_path / "elsewhere", {"b.png": FILES["b.png"], "b.txt": FILES["b.txt"]})
    data = write_folder(tmp_path / "data", {"a.png": FILES["a.png"], "a.txt": FILES["a.txt"]})
    (data / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (data / "loop").symlink_to(data, target_is_directory=True)
    (data / "deep").mkdir()
    write_shard(data / "deep" / "0.tar", {"c.png": FILES["c.png"], "c.txt": FILES["c.txt"]})
    captions, bad, collection = read_all(data)
    assert captions == ["the image c", "the image a", "the image b"] and not bad and len(collection) == 3
    assert collection.caption(2) == "the image b" and not collection.passed_over


@pytest.mark.parametrize(
    ("ending", "format_"), [("gif", "GIF"), ("tif", "TIFF"), ("jfif", "JPEG"), ("jp2", "JPEG2000"), ("avif", "AVIF")]
)
def test_what_pillow_reads_is_read(tmp_path, ending, format_):
    Image.init()
    if format_ not in Image.SAVE:
        pytest.skip(f"this Pillow has no {format_}")
    write_folder(tmp_path, {f"x.{ending}": encoded(format_), "x.txt": b"x"})
    captions, bad, collection = read_all(tmp_path)
    assert captions == ["x"] and not bad
    near = collection.read(0).image.getpixel((2, 2))
    assert max(abs(a - b) for a, b in zip(near, (9, 99, 199), strict=True)) < 12


def test_other_files_are_named(tmp_path):
    more = {"d.heic": b"?", "e.txt": b"alone", "a.json": b"{}", ".DS_Store": b""}
    _, _, collection = read_all(write_folder(tmp_path, FILES | more))
    assert collection.passed_over == {"d.heic": "no image that is read", "e.txt": "a caption without its image"}


def test_ghostscript_is_not_run(tmp_path):
    with pytest.raises(BadSample, match="cannot be read"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "x.jpg")


# ---- datasets ----


@pytest.mark.parametrize("form", [{"type": "numpy"}, {"type": None, "columns": ["caption"]}])
def test_a_dataset_saved_with_a_format(tmp_path, form):
    write_dataset(tmp_path / "plain", [(FILES["a.png"], "the a"), (FILES["b.png"], "the b")])
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_from_disk(str(tmp_path / "plain"))
    rows.set_format(**form)
    rows.save_to_disk(str(tmp_path / "formed"))
    captions, bad, collection = read_all(tmp_path / "formed")
    assert captions == ["the a", "the b"] and not bad and collection.caption(1) == "the b"


def test_splits_that_are_not_read_are_named(tmp_path):
    write_dataset(tmp_path / "plain", [(FILES["a.png"], "the a")])
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_from_disk(str(tmp_path / "plain"))
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "both"))
    assert list(open_images(tmp_path / "both").passed_over) == ["test"]


# ---- decoders ----


def exif(*entries):
    """EXIF of little-endian entries (tag, type, count, four bytes)."""
    rows = b"".join(struct.pack("<HHI", tag, kind, count) + data for tag, kind, count, data in sorted(entries))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + b"\0\0\0\0"


@pytest.mark.parametrize("kind", range(14))
@pytest.mark.parametrize("tag", [0x010E, 0x011A, 0x0132, 0x8769, 0x8825, 0x9286])
def test_an_odd_tag_of_the_exif_leaves_image_and_orientation(tag, kind):
    data = encoded("JPEG", exif=exif((ORIENTATION, 3, 1, b"\x06\0\0\0"), (tag, kind, 1, b"\x07\0\0\0")))
    assert decode_image(data, "x").size == (4, 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_orientations_are_undone(orientation, kind):
    """Against Pillow's own transposition, on an image whose corners differ."""
    from PIL import ImageOps

    image = Image.new("RGB", (6, 4))
    for place, color in (((0, 0), "red"), ((5, 0), "lime"), ((0, 3), "blue")):
        image.putpixel(place, Image.new("RGB", (1, 1), color).getpixel((0, 0)))
    file = io.BytesIO()
    if kind == "TIFF":
        image.save(file, kind, tiffinfo={ORIENTATION: orientation})
    else:
        image.save(file, kind, exif=exif((ORIENTATION, 3, 1, bytes([orientation, 0, 0, 0]))))
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        expected = ImageOps.exif_transpose(opened)
    assert expected.size == ((4, 6) if orientation > 4 else (6, 4))
    assert decode_image(file.getvalue(), "x").tobytes() == expected.tobytes()


@pytest.mark.parametrize("error", [TypeError("odd"), IndexError(), MemoryError(), struct.error("x"), RecursionError()])
def test_whatever_a_decoder_raises_is_a_file_that_cannot_be_read(monkeypatch, tmp_path, error):
    def raises(*_, **__):
        raise error

    collection = open_images(write_folder(tmp_path, FILES))
    monkeypatch.setattr(Image, "open", raises)
    bad = {}
    assert not list(samples(collection, bad)) and len(bad) == 3
    assert all("cannot be read" in reason for reason in bad.values())


def test_pixels_of_no_stated_range_are_refused():
    with pytest.raises(BadSample, match="no stated range"):
        decode_image(encoded("TIFF", "F", 0.5), "x")


def test_a_png_is_what_it_was(tmp_path):
    assert decode_image(png((1, 2, 3)), "x").getpixel((0, 0)) == (1, 2, 3)
