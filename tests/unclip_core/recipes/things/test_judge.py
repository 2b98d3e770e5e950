"""The judge of things: boxes, grounds, colours and places from pixels; names from a net that has learned a few."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from things_world import small_world

from unclip.unclip_core.parsing import MalformedInput
from unclip.unclip_core.recipes.things import evaluation, judge_training, measures
from unclip.unclip_core.recipes.things.crops import CROP, cut, find_box, ground_color, nearest_ground
from unclip.unclip_core.recipes.things.judge import (
    NOTHING,
    Judge,
    JudgeNet,
    JudgeParams,
    Verdict,
    load_judge,
    save_judge,
)
from unclip.unclip_core.recipes.things.judge_training import NO_STYLE, JudgeBatches, JudgeObjective
from unclip.unclip_core.recipes.things.measures import psnr
from unclip.unclip_core.recipes.things.pictures import Picture, Placed
from unclip.unclip_core.recipes.things.questions import ROWS, questions, score, shares
from unclip.unclip_core.recipes.things.vocabulary import (
    COLORS,
    GROUNDS,
    LANGUAGES,
    PLACES,
    SHAPES,
    STYLES,
    concepts,
    held_out_ground,
    held_out_pair,
)


@pytest.fixture(scope="module")
def world():
    return small_world()


def block(ground="navy", box=(0.25, 0.5, 0.75, 1.0), color="red", size=64):
    """A block of a colour on a ground `[3, size, size]`."""
    image = torch.tensor(GROUNDS[ground])[:, None, None].expand(3, size, size).clone()
    left, top, right, bottom = (round(edge * size) for edge in box)
    image[:, top:bottom, left:right] = torch.tensor(COLORS[color])[:, None, None]
    return image / 255


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("ground", GROUNDS)
def test_ground_and_box_are_read_off_the_pixels(size, ground):
    image = block(ground, (0.25, 0.125, 0.75, 0.375), "orange" if ground == "black" else "black", size)
    noise = 0.02 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    found = ground_color(image + noise)
    assert list(GROUNDS)[nearest_ground(found)] == ground
    box = find_box(image + noise, found)
    assert (box.left, box.top, box.right, box.bottom) == pytest.approx((0.25, 0.125, 0.75, 0.375), abs=0.02)


def test_nothing_and_a_speck_have_no_box():
    image = block(box=(0, 0, 0, 0))
    assert find_box(image, ground_color(image)) is None
    image[:, 5, 5] = 1
    assert find_box(image, ground_color(image)) is None


def test_a_crop_is_the_thing_with_its_margin_at_the_edge_too():
    image = block(box=(0.25, 0.5, 0.75, 1.0))
    ground = ground_color(image)
    crop = cut(image, find_box(image, ground), ground)
    assert crop.shape == (3, CROP, CROP)
    assert torch.allclose(crop[:, CROP // 2, CROP // 2], torch.tensor(COLORS["red"]) / 255, atol=0.01)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        assert torch.allclose(crop[:, corner[0], corner[1]], ground, atol=0.01)
    red = (crop[0] > 0.5).float().mean()
    assert red == pytest.approx(1 / 1.12**2, rel=0.06)


def judge_of(answers):
    """A judge whose net answers by the crop's mean colour: {colour: (thing, shape, style)}."""

    class Net(torch.nn.Module):
        def forward(self, crops):
            palette = torch.tensor([COLORS[name] for name in answers]) / 255
            nearest = (crops[:, :, 24, 24][:, None] - palette).square().sum(-1).argmin(1)
            things = torch.zeros(len(crops), len(concepts()) + len(SHAPES))
            styles = torch.zeros(len(crops), len(STYLES))
            for row, number in enumerate(nearest.tolist()):
                thing, shape, style = list(answers.values())[number]
                things[row, thing] = things[row, len(concepts()) + shape] = styles[row, style] = 1
            return things, styles

    return Judge(Net())


def test_a_thing_is_scored_by_name_style_and_ground():
    judge = judge_of({"red": (700, 2, 4)})
    picture = Picture("thing", list(GROUNDS).index("navy"), (Placed(700, 4, 0.5, 0.5, 0.9),))
    assert score(judge, block(), picture) == {"top1": True, "top5": True, "style": True, "ground": True}
    other = replace(picture, ground=0, things=(Placed(701, 3, 0.5, 0.5, 0.9),))
    assert score(judge, block(), other) == {"top1": False, "top5": False, "style": False, "ground": False}
    empty = block(box=(0, 0, 0, 0))
    assert judge.one(empty) == NOTHING
    assert score(judge, empty, picture) == {"top1": False, "top5": False, "style": False, "ground": True}


def test_a_shape_is_scored_by_shape_colour_ground_and_place():
    judge = judge_of({"red": (0, 2, 0), "green": (0, 5, 0)})
    box = (0.6, 0.1, 0.9, 0.4)
    placed = Placed(5, list(COLORS).index("green"), 0.75, 0.25, 0.3)
    picture = Picture("shape", list(GROUNDS).index("beige"), (placed,), size=0, place=PLACES.index("top right"))
    assert all(score(judge, block("beige", box, "green"), picture).values())
    found = score(judge, block("beige", (0.1, 0.6, 0.4, 0.9), "red"), picture)
    assert found == {"shape": False, "color": False, "ground": True, "place": False, "all": False}
    assert "place" not in score(judge, block(), replace(picture, size=None))


@pytest.mark.parametrize("relation", [0, 1])
def test_two_things_are_found_in_either_order_and_their_relation_read(relation):
    judge = judge_of({"red": (700, 0, 0), "green": (701, 0, 0)})
    first, second = (
        ((0.1, 0.3, 0.4, 0.6), (0.6, 0.3, 0.9, 0.6)) if relation == 0 else ((0.3, 0.1, 0.6, 0.4), (0.3, 0.6, 0.6, 0.9))
    )
    image = torch.where(block(box=second, color="green")[1:2] > 0.5, block(box=second, color="green"), block(box=first))
    things = (Placed(700, 0, 0, 0, 0.3), Placed(701, 0, 0, 0, 0.3))
    picture = Picture("scene", list(GROUNDS).index("navy"), things, relation)
    assert score(judge, image, picture) == {"both": True, "relation": True, "ground": True}
    assert score(judge, image, replace(picture, things=things[::-1]))["relation"] is False
    assert score(judge, image, replace(picture, relation=1 - relation)) == {
        "both": True, "relation": False, "ground": True,
    }  # fmt: skip
    assert score(judge, block(box=first), picture) == {"both": False, "ground": True}


def test_shares_count_only_pictures_that_have_the_fact():
    assert shares([{"a": True, "b": True}, {"a": False}]) == {"a": 0.5, "b": 1.0, "n": 2}


def test_questions_are_the_same_pictures_in_every_language_and_of_their_split(world):
    asked = {name: questions(world, name, 30, seed=4) for name in ROWS}
    for language in LANGUAGES[1:]:
        assert [q.picture for q in asked[f"thing_{language}"]] == [q.picture for q in asked["thing"]]
    assert [q.prompt for q in asked["thing_other_words"]] != [q.prompt for q in asked["thing"]]
    assert all(held_out_ground(q.picture.things[0].concept, q.picture.ground) for q in asked["thing_held_out"])
    assert all(held_out_pair(*(t.concept for t in q.picture.things)) for q in asked["scene_held_out"])
    assert questions(world, "scene", 5, seed=4) == asked["scene"][:5]
    assert questions(world, "scene", 5, seed=5) != asked["scene"][:5]
    assert all(f"thing {q.picture.things[0].concept}" in q.prompt for q in asked["thing"])


def small_batches(world):
    """Four drawings that can be told apart, then the shapes."""
    boxed = np.zeros((4 + len(SHAPES), CROP, CROP, 4), np.uint8)
    for row in range(len(boxed)):
        boxed[row, 6 + 2 * row : 40, 6 : 42 - 2 * row] = (60 * row % 256, 200 - 50 * (row % 4), 100, 255)
    few = replace(world.sprites, keys=[(0, 3), (1, 9), (2, 27), (3, 81)])
    return JudgeBatches(boxed, few, 32, seed=1)


def test_batches_depend_on_their_number_and_shapes_have_no_style(world):
    batches = small_batches(world)
    one, again, other = batches.batch(3), batches.batch(3), batches.batch(4)
    assert torch.equal(one["crops"], again["crops"]) and not torch.equal(one["crops"], other["crops"])
    assert 0 <= one["crops"].min() and one["crops"].max() <= 1
    shapes = one["things"] >= len(concepts())
    assert torch.equal(one["styles"] == NO_STYLE, shapes)


@pytest.mark.slow
def test_the_net_learns_to_tell_drawings_apart_and_comes_back_from_its_file(world, tmp_path):
    torch.manual_seed(0)
    batches, net = small_batches(world), JudgeNet(JudgeParams())
    objective = JudgeObjective(net)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    for number in range(40):
        optimizer.zero_grad()
        objective(batches.batch(number))["loss"].backward()
        optimizer.step()
    found = judge_training.measure_judge(Judge(net), batches, 4)
    assert found["top1"] > 0.7 and found["top5"] > 0.9 and found["style"] > 0.8
    save_judge(net, tmp_path / "judge.safetensors")
    assert (tmp_path / "judge.safetensors").stat().st_size < 3 * 2**20
    again = load_judge(tmp_path / "judge.safetensors")
    crops = batches.batch(99)["crops"]
    with torch.inference_mode():
        assert torch.allclose(again.net(crops)[0], net.eval()(crops)[0], atol=0.05)


def test_a_judge_of_other_things_or_none_is_refused(tmp_path):
    with pytest.raises(MalformedInput, match="unclip data judge"):
        load_judge(tmp_path / "judge.safetensors")
    save_judge(JudgeNet(JudgeParams(things=12)), tmp_path / "judge.safetensors")
    with pytest.raises(MalformedInput, match="other things"):
        load_judge(tmp_path / "judge.safetensors")


def test_psnr_is_of_the_mean_square():
    true = torch.zeros(1, 4, 4, 3)
    assert psnr(true + 0.1, true) == pytest.approx(20)
    assert psnr(true, true) == pytest.approx(100)


class SeesWhite:
    """Another judge, that tells a plain white picture from all others."""

    def __init__(self, world):
        pass

    def score(self, image, picture):
        return {"near_top1": bool((image < 1).any())}


def test_the_table_is_made_row_by_row_with_true_pictures_beside(world, monkeypatch, tmp_path, capsys):
    """Drawings are the true pictures here, half of them emptied: half of all is right."""
    judge = judge_of({"red": (0, 0, 0)})

    def true_drawings(model, prompts, seeds, settings):
        part = [q.picture for q in asked if q.prompt in prompts]
        images = measures.pictures_as_tensor(world, part, 64)
        images[::2] = 1.0
        return type("Drawing", (), {"large": images})

    asked = questions(world, "thing", 8, 0)
    monkeypatch.setattr(evaluation, "load_judge", lambda path: judge)
    monkeypatch.setattr(evaluation, "open_world", lambda path, packages: world)
    monkeypatch.setattr(evaluation, "placed_model", lambda path, device: None)
    monkeypatch.setattr(evaluation, "text_to_image", true_drawings)
    monkeypatch.setattr(evaluation, "Neighbours", SeesWhite)
    monkeypatch.setitem(evaluation.STAGES, "clip", lambda *of: {"top1": 0.25, "n": of[3]})
    found = evaluation.evaluate_things(8, 0, data=tmp_path, rows=["thing", "clip"], output=tmp_path / "out")
    styles = [q.picture.things[0].style == 0 for q in asked]
    assert found["true"]["thing"]["style"] == np.mean(styles)
    assert found["thing"]["style"] == sum(styles[1::2]) / 8
    assert found["thing"]["near_top1"] == 0.5 and found["true"]["thing"]["near_top1"] == 1.0
    assert found["true"]["thing"]["ground"] == 1.0 and found["clip"] == {"top1": 0.25, "n": 8}
    assert (tmp_path / "out" / "thing.png").is_file() and (tmp_path / "out" / "evaluation.json").is_file()
    assert len((tmp_path / "out" / "thing.txt").read_text().splitlines()) == 8
    assert "top1 25.0 %" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no_such_row"):
        evaluation.evaluate_things(rows=["no_such_row"])


def test_a_verdicts_place_is_the_cell_of_its_box():
    assert PLACES[Verdict((), 0, 0, 0, None).place] == "center"
