"""Images as rows of `unclip map`: whatever their names, and although the collection changes meanwhile."""

import os

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

from PIL import Image

from unclip.cli.mapping.rows import make_rows
from unclip.cli.mapping.sources import listing
from unclip.cli.mapping.tasks import NamedImages, Setup, make_task
from unclip.unclip_core.families.loading import SHAPES

COLORS = {"a.png": "red", "b.png": "green", "c.png": "blue", "d.png": "white"}


def paint(folder, *names):
    for name in names:
        Image.new("RGB", (64, 64), COLORS[name]).save(folder / name)


def rows_of(folder, count=1):
    return list(make_rows(listing(str(folder)).to_pylist(), count=count))


def test_a_worker_that_starts_after_images_came_and_went_reads_those_of_its_rows(tmp_path):
    paint(tmp_path, "b.png", "c.png", "d.png")
    rows = rows_of(tmp_path, count=2)
    paint(tmp_path, "a.png")
    (tmp_path / "d.png").unlink()
    images = NamedImages(str(tmp_path))
    read = {row.id: images.read(row.values).getpixel((0, 0)) for row in rows if not row.id.startswith("d")}
    green, blue = (0, 128, 0), (0, 0, 255)
    assert read == {"b.png": green, "b.png#2": green, "c.png": blue, "c.png#2": blue}
    with pytest.raises(ValueError, match="'d.png' is no longer in"):
        images.read(rows[-1].values)


def test_its_embeddings_are_those_of_the_named_images(tmp_path):
    paint(tmp_path, "b.png", "c.png")
    rows, setup = rows_of(tmp_path), Setup("embed", model=SHAPES, data=str(tmp_path))
    before = make_task(setup)(rows)
    paint(tmp_path, "a.png")
    after = make_task(setup)(rows)
    for one, other in zip(before, after, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-5)
    assert before[0].embedding != pytest.approx(before[1].embedding, abs=1e-2)


def test_a_name_that_is_not_utf8_is_an_id_and_finds_its_image(tmp_path):
    paint(tmp_path, "a.png", "b.png")
    try:
        os.rename(tmp_path / "b.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes Unicode alone")
    rows = rows_of(tmp_path)
    assert [row.id for row in rows] == ["a.png", r"caf\udce9.png"]
    paint(tmp_path, "b.png")
    assert NamedImages(str(tmp_path)).read(rows[1].values).getpixel((0, 0)) == (0, 128, 0)
