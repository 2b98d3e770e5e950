"""What text diffs are asked for, how they are judged, and how far drawings are from the training's."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from things_world import small_world

from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.pipelines import encode_text, sample_prior
from unclip.unclip_core.recipes.things import edits, measures, originality
from unclip.unclip_core.recipes.things.edits import KINDS, edit_of, is_face, judged
from unclip.unclip_core.recipes.things.judge import Verdict
from unclip.unclip_core.recipes.things.measures import pictures_as_tensor, psnr
from unclip.unclip_core.recipes.things.vocabulary import COLORS, concepts


@pytest.fixture(scope="module")
def world():
    return small_world()


class FixedJudge:
    """Sees the same whatever it is shown."""

    def __init__(self, verdict, ground=0):
        self._verdict, self._ground = verdict, ground

    def one(self, image, most=5):
        return self._verdict

    def ground(self, image):
        return self._ground


BLIND = FixedJudge(Verdict((), 0, -1, -1, None), -1)


def test_an_edit_turns_one_fact_and_says_it(world):
    for number, kind in enumerate(KINDS * 3):
        edit = edit_of(world, number, seed=2)
        thing, after = edit.before.things[0], edit.after.things[0]
        assert edit.kind == kind and edit.texts[0] != edit.texts[1]
        assert edit == edit_of(world, number, seed=2)
        changed = [edit.before.ground != edit.after.ground, thing.style != after.style, edit.color >= 0]
        changed.append(thing.concept != after.concept)
        assert [KINDS[at] for at, is_so in enumerate(changed) if is_so] == [kind]
        assert f"thing {thing.concept}" in edit.texts[0] and f"thing {after.concept}" in edit.texts[1]
        if kind == "color":
            assert f" {list(COLORS)[edit.color]} " in edit.texts[1] and " red " in edit.texts[0]
        if kind == "expression":
            assert is_face(thing.concept) and is_face(after.concept)


def test_an_edit_is_right_if_it_turned_and_the_thing_stayed(world):
    image = torch.zeros(3, 64, 64)
    for number, kind in enumerate(KINDS):
        edit = edit_of(world, number, seed=0)
        thing, after = edit.before.things[0], edit.after.things[0]
        good = Verdict((after.concept, 1, 2, 3, 4), 0, after.style, edit.color, None)
        assert judged(FixedJudge(good, edit.after.ground), image, edit) == (True, True)
        assert judged(BLIND, image, edit) == (False, False), kind
        if kind != "expression":
            assert judged(FixedJudge(Verdict((thing.concept,), 0, -1, -1, None), -1), image, edit) == (False, True)


def test_shares_are_given_for_all_and_for_each_kind(world, monkeypatch):
    sides = iter((torch.eye(8, 8), torch.eye(8, 8).roll(1, dims=1)))
    monkeypatch.setattr(edits, "embed_text", lambda clip, said: next(sides))
    monkeypatch.setattr(edits, "embeds_of", lambda model, world, part: torch.ones(len(part), 8))
    monkeypatch.setattr(edits, "drawn_large", lambda model, embeds, seed, at, text: torch.zeros(len(embeds), 3, 8, 8))
    found = edits.edits(SimpleNamespace(clip=None), world, BLIND, 8, 0)
    assert found == {"turned": 0, "stayed": 0, "all": 0} | dict.fromkeys(KINDS, 0) | {"n": 8}


def test_the_decoder_is_told_the_new_text_where_it_is_to_be(world, monkeypatch):
    model, told, asked = load_model(), [], [edit_of(world, number, 0).texts[1] for number in range(4)]

    def drawing(model, embeds, seed, at, text):
        told.append(text)
        return torch.zeros(len(embeds), 3, 8, 8)

    monkeypatch.setattr(edits, "drawn_large", drawing)
    edits.edits(model, world, BLIND, 4, 0)
    edits.edits(model, world, BLIND, 4, 0, told=True)
    assert told[0] is None
    torch.testing.assert_close(told[1].embeds, encode_text(model.clip, asked).embeds)


def test_what_is_judged_has_gone_through_the_upsampler():
    model = load_model()
    embeds = torch.nn.functional.normalize(torch.randn(1, 256, generator=torch.Generator().manual_seed(0)), dim=1)
    large, text = measures.drawn_large(model, embeds, 3, 0), encode_text(model.clip, ["a cat"])
    assert large.shape == (1, 3, 256, 256)
    small = measures.drawn(model, embeds, 3, 0)
    assert psnr(torch.nn.functional.avg_pool2d(large, 4), small) > 28
    assert psnr(measures.drawn_large(model, embeds, 3, 0, text), large) < 25  # another image


def test_by_the_prior_equal_texts_turn_nothing_and_others_by_what_it_draws_of_them(world):
    model, part = load_model(), [edit_of(world, number, seed=1) for number in (0, 1)]
    embeds = torch.nn.functional.normalize(torch.randn(2, 256, generator=torch.Generator().manual_seed(0)), dim=1)
    same = [replace(edit, texts=(edit.texts[0], edit.texts[0])) for edit in part]
    torch.testing.assert_close(edits.by_prior(model, embeds, same, [4, 5]), embeds, rtol=0, atol=1e-5)
    turned = edits.by_prior(model, embeds, part, [4, 5])
    for row, (edit, seed) in enumerate(zip(part, (4, 5), strict=True)):
        old, new = (sample_prior(model.prior, encode_text(model.clip, [said]), seeds=[seed])[0] for said in edit.texts)
        expected = embeds[row].double() + new.double() - old.double()
        torch.testing.assert_close(turned[row].double(), expected / expected.norm(), rtol=0, atol=1e-4)


def test_faces_are_faces():
    named = {code: is_face(index) for index, code in enumerate(concepts())}
    assert named["1f600"] and named["1f641"] and not named["1f34e"]


def test_the_distance_is_that_of_pixels(world, monkeypatch):
    assert originality.distances(torch.zeros(3, 4, 4), torch.full((2, 3, 4, 4), 0.5)).tolist() == [0.5, 0.5]

    def true_drawings(model, prompts, seeds):
        pictures = [originality.single(world, number, 0) for number in range(len(prompts))]
        return SimpleNamespace(small=pictures_as_tensor(world, pictures, 64))

    monkeypatch.setattr(originality, "text_to_image", true_drawings)
    monkeypatch.setattr(originality, "boxed", lambda sprites, ground: [torch.zeros(3, 48, 48)] * len(sprites.keys))
    found = originality.memory(None, world, 4, 0)
    assert found["left_out"] == 0 and found["drawn"] > 0.2 and found["n"] == 4


def test_variations_are_compared_with_each_other_and_with_others(world, monkeypatch):
    def by_picture(model, embeds, seed, at):
        return (torch.arange(len(embeds)) // 4).float()[:, None, None, None].expand(-1, 3, 8, 8)

    monkeypatch.setattr(originality, "embeds_of", lambda model, world, part: torch.ones(len(part), 8))
    monkeypatch.setattr(originality, "drawn", by_picture)
    assert originality.diversity(None, world, 8, 0) == {"within": 0.0, "between": 1.0, "n": 8}


def test_bicubic_enlarging_is_measured_beside_the_upsampler(world, monkeypatch):
    def blocks(part, small, seeds):
        return small.repeat_interleave(4, 1).repeat_interleave(4, 2)

    monkeypatch.setattr(measures, "upscale", blocks)
    found = measures.upsampling(SimpleNamespace(upsampler=None), world, 2, 0)
    assert 15 < found["upsampler"] < 60 and 15 < found["bicubic"] < 60 and found["n"] == 2
    assert found["gain"] == pytest.approx(found["upsampler"] - found["bicubic"])
