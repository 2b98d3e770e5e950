"""Evaluation prompts and the tally."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.unclip_core.evaluate.contact_sheet import ContactSheets
from unclip.unclip_core.world.evaluation import FRACTIONS, Tally, evaluation_scenes
from unclip.unclip_core.world.judge import SCORES
from unclip.unclip_core.world.render import render
from unclip.unclip_core.world.vocabulary import HELD_OUT


def drawn(prompts):
    return render([scene for _, _, scene, _ in prompts], 64)


def test_prompts_are_balanced_and_repeat():
    prompts = evaluation_scenes(10, seed=3)
    assert Counter((split, kind) for split, kind, _, _ in prompts) == {
        (split, kind): 5 for split in ("trained", "held_out") for kind in ("single", "pair")
    }
    assert prompts == evaluation_scenes(10, seed=3)
    assert prompts != evaluation_scenes(10, seed=4)
    for split, kind, scene, text in prompts:
        assert scene.kind == kind and "background" in text
        assert any((t.shape, t.color) in HELD_OUT for t in scene.things) == (split == "held_out")


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="0"):
        evaluation_scenes(0, seed=0)


def test_perfect_images_score_one():
    prompts = evaluation_scenes(6, seed=0)
    tally = Tally()
    tally.add_images(prompts, drawn(prompts))
    expected = {**dict.fromkeys(FRACTIONS, 1.0), "n": 3}
    kinds = {"single": expected, "pair": expected}
    assert tally.fractions() == {"trained": kinds, "held_out": kinds}


def test_other_images_score_less():
    prompts = evaluation_scenes(6, seed=0)
    tally = Tally()
    tally.add_images(prompts, drawn(prompts).roll(1, dims=0))
    assert all(kind["all"] < 1 for split in tally.fractions().values() for kind in split.values())


def test_fractions_are_of_their_own_kind_and_split():
    tally = Tally()
    right, wrong = dict.fromkeys(SCORES, True), dict.fromkeys(SCORES, False)
    for scores in (right, right, wrong, {**wrong, "count": True}):
        tally.add("trained", "pair", scores)
    tally.add("held_out", "single", wrong)
    fractions = tally.fractions()
    expected = {**dict.fromkeys(FRACTIONS, 0.5), "count": 0.75, "place_if_bound": 1.0, "n": 4}
    assert fractions["trained"] == {"pair": expected}
    assert fractions["held_out"] == {"single": {**dict.fromkeys(FRACTIONS, 0.0), "n": 1}}


def test_places_are_counted_among_the_images_that_have_the_right_things():
    tally = Tally()
    right = dict.fromkeys(SCORES, True)
    for scores in (right, {**right, "place": False}, right, right, {**right, "bound": False}):
        tally.add("trained", "pair", scores)
    row = tally.fractions()["trained"]["pair"]
    assert (row["bound"], row["place"], row["place_if_bound"]) == (0.8, 0.8, 0.75)


def test_as_many_images_as_prompts():
    with pytest.raises(ValueError, match="1 images for 2"):
        Tally().add_images(evaluation_scenes(1, seed=0), torch.zeros(1, 3, 64, 64))


def test_contact_sheets_show_each_split_and_what_went_wrong(tmp_path):
    prompts = evaluation_scenes(6, seed=0)
    images = drawn(prompts)
    images[2], images[9] = 1.0, 0.0
    scores = Tally().add_images(prompts, images)
    sheets = ContactSheets()
    sheets.add(prompts, images.permute(0, 2, 3, 1), scores)
    sheets.save(tmp_path)
    side = images.shape[-1]
    trained, failures = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("trained", "failures"))
    np.testing.assert_allclose(trained[:side, side : 2 * side] / 255, images[1].permute(1, 2, 0), atol=0.5 / 255)
    assert failures.shape == (side, 8 * side, 3)
    assert (failures[:, :side] == 255).all() and (failures[:, side : 2 * side] == 0).all()
    said = (tmp_path / "failures.txt").read_text().splitlines()
    assert [line.split(" (")[0] for line in said] == [prompts[2][3], prompts[9][3]]
    assert "count" in said[0]
