"""The shards: what `unclip train` reads, made again only where they are missing."""

import json

import numpy as np
import pytest
from things_world import small_world

from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.recipes.things import dataset
from unclip.unclip_core.recipes.things.drawing import draw
from unclip.unclip_core.recipes.things.pictures import Shares

SHARES = Shares(scenes=0.4, shapes=0.0)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes data of a small world of two shards, and returns its folder."""
    world = small_world()
    monkeypatch.setattr(dataset, "SHARD", 8)
    monkeypatch.setattr(dataset, "open_world", lambda folder, packages, workers: world)

    def make(seed=1, captions=1, workers=0, folder="data", small=12):
        dataset.make_data(
            tmp_path / folder, small=small, large=0, seed=seed, shares=SHARES, captions=captions, workers=workers
        )
        return tmp_path / folder, world

    return make


def test_shards_hold_the_pictures_and_their_captions(made):
    folder, world = made()
    shards = open_images(folder / "small")
    assert len(shards) == 12
    for number in (0, 7, 11):
        picture, caption = world.sample(1, number, SHARES)
        sample = shards.read(number)
        assert sample.caption == caption
        assert np.array_equal(np.asarray(sample.image), np.asarray(draw(picture, world.sprites, 64)))


def test_a_stopped_run_goes_on_and_other_settings_are_refused(made):
    folder, _ = made()
    first, second = sorted((folder / "small").iterdir())
    before, time = second.read_bytes(), first.stat().st_mtime_ns
    second.unlink()
    made()
    assert second.read_bytes() == before and first.stat().st_mtime_ns == time
    with pytest.raises(ValueError, match="other settings"):
        made(seed=2)


def test_more_pictures_are_added_and_fewer_refused(made):
    folder, _ = made(small=5)
    assert len(open_images(folder / "small")) == 5
    made(small=12)
    whole, _ = made(folder="whole")
    for path in (folder / "small").glob("*.tar"):
        assert path.read_bytes() == (whole / "small" / path.name).read_bytes()
    for fewer in (5, 8):
        with pytest.raises(ValueError, match=f"holds 12 pictures, and {fewer} are asked for"):
            made(small=fewer)
    made(small=0)  # none asked for: what is there stays
    assert len(open_images(folder / "small")) == 12


def test_about_names_sources_licences_and_what_is_held_out(made):
    folder, _ = made()
    about = json.loads((folder / "about.json").read_text())
    assert {"CC-BY-4.0", "Apache-2.0", "MIT", "Unicode-3.0"} == {source["licence"] for source in about["sources"]}
    assert ["circle", "purple"] in about["held_out"]["shapes_and_colors"]
    assert (folder / "sheet.png").is_file() and len((folder / "sheet.txt").read_text().splitlines()) == dataset.SHOWN


def test_a_picture_may_have_several_captions_the_first_of_them_as_ever(made):
    folder, world = made(captions=4)
    shards = open_images(folder / "small")
    for number in (0, 11):
        picture, caption = world.sample(1, number, SHARES)
        assert shards.caption(number) == caption
        assert shards.captions(number) == [caption, *world.other_captions(1, number, picture, 3)]
    assert json.loads((folder / "about.json").read_text())["settings"]["captions"] == 4
    with pytest.raises(ValueError, match="1 caption or more"):
        made(captions=0)


def test_processes_beside_this_one_write_the_same_files(made):
    alone, _ = made(captions=4)
    shared, _ = made(captions=4, workers=2, folder="shared")
    files = [sorted(path.relative_to(folder) for path in folder.rglob("*.*")) for folder in (alone, shared)]
    assert files[0] == files[1]
    assert all((alone / path).read_bytes() == (shared / path).read_bytes() for path in files[0])
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        made(workers=-1)
