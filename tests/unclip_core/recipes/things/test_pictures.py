"""Pictures and captions of things: what is held out stays out, and captions say what is drawn."""

import random
import re

import numpy as np
import pytest
from things_world import small_world

from unclip.unclip_core.recipes.things import captions
from unclip.unclip_core.recipes.things.captions import FOLDER, with_articles, words
from unclip.unclip_core.recipes.things.drawing import draw
from unclip.unclip_core.recipes.things.pictures import (
    Picture,
    Placed,
    Shares,
    draw_picture,
    draw_scene,
    draw_shape,
    draw_thing,
    picture_random,
)
from unclip.unclip_core.recipes.things.sprites import main_color, render, shape_svg
from unclip.unclip_core.recipes.things.vocabulary import (
    COLORS,
    GROUNDS,
    HELD_OUT_SHAPES,
    LANGUAGES,
    PLACES,
    RELATIONS,
    SHAPES,
    STYLES,
    concepts,
    held_out_ground,
    held_out_pair,
    well_known,
)


@pytest.fixture(scope="module")
def world():
    return small_world()


def is_held_out(picture):
    things = [thing.concept for thing in picture.things]
    if picture.kind == "scene":
        return held_out_pair(*things)
    if picture.kind == "shape":
        return (things[0], picture.things[0].style) in HELD_OUT_SHAPES
    return held_out_ground(things[0], picture.ground)


def test_training_pictures_hold_no_held_out_pair_and_all_three_kinds(world):
    pictures = [draw_picture(picture_random(0, n, "train"), world.sprites) for n in range(4000)]
    assert not any(map(is_held_out, pictures))
    shares = {kind: sum(p.kind == kind for p in pictures) / 4000 for kind in ("thing", "scene", "shape")}
    assert shares == pytest.approx({"thing": 0.64, "scene": 0.26, "shape": 0.1}, abs=0.03)


@pytest.mark.parametrize("kind", ["thing", "scene", "shape"])
def test_held_out_pictures_are_held_out_pairs_alone(world, kind):
    for n in range(60):
        chance = picture_random(0, n, "measure")
        sprites = () if kind == "shape" else (world.sprites,)
        make = {"thing": draw_thing, "scene": draw_scene, "shape": draw_shape}[kind]
        assert is_held_out(make(chance, *sprites, split="held_out"))


def test_held_out_pairs_are_some_of_all():
    shares = [held_out_ground(c, g) for c in range(len(concepts())) for g in range(1, len(GROUNDS))]
    assert np.mean(shares) == pytest.approx(1 / 13, abs=0.01)
    assert not any(held_out_ground(c, 0) for c in range(len(concepts())))
    assert len(concepts()) == len(set(concepts())) == 1231 and 80 <= len(well_known()) <= 100


def test_a_sample_depends_on_its_seed_and_number_alone(world):
    once = [world.sample(3, n, Shares()) for n in (5, 6)]
    assert [world.sample(3, n, Shares()) for n in (6, 5)] == once[::-1]
    assert world.sample(4, 5, Shares()) != once[0]


def test_things_lie_within_the_picture_and_stand_as_the_relation_says(world):
    for n in range(600):
        picture = draw_picture(picture_random(1, n, "train"), world.sprites)
        for thing in picture.things:
            assert thing.side / 2 - 0.03 <= min(thing.x, thing.y) <= max(thing.x, thing.y) <= 1.03 - thing.side / 2
        if picture.kind == "scene":
            first, second = picture.things
            beside = RELATIONS[picture.relation] == "beside"
            assert (second.x - first.x > 0.3) if beside else (second.y - first.y > 0.3)


def test_shares_must_be_shares():
    with pytest.raises(ValueError, match="shares"):
        Shares(scenes=0.9, shapes=0.2)


def test_a_picture_is_its_things_before_its_ground(world):
    ground = list(GROUNDS).index("mint")
    picture = Picture("thing", ground, (Placed(7, 2, 0.75, 0.25, 0.4),))
    for pixels in (64, 128):
        image = np.asarray(draw(picture, world.sprites, pixels))
        assert tuple(image[-1, 0]) == GROUNDS["mint"]
        assert tuple(image[pixels // 4, 3 * pixels // 4]) == COLORS["red"]
        red = (image[..., 2] < (GROUNDS["mint"][2] + COLORS["red"][2]) / 2).mean()
        assert red == pytest.approx(np.pi * 0.2**2, rel=0.05)


def test_the_main_colour_is_measured_from_opaque_pixels():
    image = np.zeros((8, 8, 4), np.uint8)
    assert main_color(image) == -1
    image[:4] = (*COLORS["blue"], 255)
    image[4:] = (*COLORS["red"], 20)
    assert list(COLORS)[main_color(image)] == "blue"
    image[:2] = (*COLORS["red"], 255)
    image[2:3] = (*COLORS["green"], 255)
    assert list(COLORS)[main_color(image)] == "red"  # 2 of 4 rows
    image[:1] = (*COLORS["yellow"], 255)
    assert main_color(image) == -1


def test_shapes_are_rendered_in_their_colours():
    pytest.importorskip("resvg_py", reason="rendering SVG needs the extra 'train'")
    filled = {
        "circle": np.pi * 0.46**2,
        "square": 0.84**2,
        "triangle": 0.5 * 0.92 * 0.84,
        "ring": 2 * np.pi * 0.35 * 0.22,
    }
    for shape, name in enumerate(SHAPES):
        image = np.asarray(render(shape_svg(shape, 2), 64))
        assert main_color(image) == 2
        if name in filled:
            assert (image[..., 3] / 255).mean() == pytest.approx(filled[name], rel=0.02)
    with pytest.raises(ValueError, match="cannot be rendered"):
        render("<svg", 64)


def test_articles_follow_the_next_letter():
    assert with_articles("a/an apple above a/an 3d cat") == "an apple above a 3d cat"
    assert with_articles("a/an unicorn and a/an Owl") == "a unicorn and an Owl"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_its_own_words_for_everything(language):
    said = words(language)
    for names in (said.styles, said.grounds, said.places, said.shapes):
        firsts = [ways[0] for ways in names]
        assert len(set(firsts)) == len(firsts)
        assert language == "en" or set(firsts) != {ways[0] for ways in words("en").styles}
    templates = [*said.names, *said.fillers, *said.asked, *said.colors, *(way for ways in said.sizes for way in ways)]
    assert all(template.count("{}") == 1 for template in templates)
    assert all(way.count("{a}") == 1 or "beside" in way for ways in said.relations for way in ways)
    assert not set(said.fillers) & set(said.asked)
    every = [way for ways in (*said.styles, *said.grounds, *said.places) for way in ways]
    assert len(set(every)) == len(every), "one wording for two facts"
    genders = {gender for _, *rest in said.shapes for gender in rest} or {""}
    assert genders == set(said.shape_colors)


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_say_what_they_are_to_say_and_nothing_else(world, language, monkeypatch):
    monkeypatch.setattr(captions, "NOISED", 0)
    said = words(language)
    for n in range(300):
        chance = picture_random(2, n, language)
        picture = draw_picture(chance, world.sprites)
        text = world.captions.caption(picture, language, chance, asked=n % 2 == 0)
        assert not re.search(r"[{}]|a/an|  ", text)
        for thing in picture.things if picture.kind != "shape" else ():
            assert f"thing {thing.concept}" in text or f"word {thing.concept}" in text
        style = picture.things[0].style
        if picture.kind != "shape":
            assert any(way in text for way in said.styles[style]) == ("style" in picture.says)
        if "ground" in picture.says:
            assert any(way in text for way in said.grounds[picture.ground])
        if "place" in picture.says:
            assert any(way in text for way in said.places[picture.place])


@pytest.mark.parametrize("language", LANGUAGES)
def test_noise_leaves_a_captions_own_words_in_their_order(language, monkeypatch):
    text, added = "one two three", []
    make = captions.noise_word
    monkeypatch.setattr(captions, "noise_word", lambda *given: added.append(make(*given)) or added[-1])
    for n in range(50):
        noised = captions.with_noise(text, language, random.Random(n))
        assert 1 <= len(added) <= 3 and all(word and not re.search(r"[{} ]", word) for word in added)
        if language in captions.UNSPACED:
            assert text in noised and len(noised) == len(text) + sum(map(len, added))
        else:
            assert sorted(noised.split()) == sorted([*text.split(), *added])
            assert [word for word in noised.split() if word in text.split()] == text.split()
        added.clear()


def test_a_fifth_of_the_captions_is_noised_and_none_that_measures(world, monkeypatch):
    monkeypatch.setattr(captions, "with_noise", lambda text, *_: text + " NOISE")
    picture = draw_picture(random.Random(0), world.sprites)

    def noised(**how):
        texts = [world.captions.caption(picture, "en", random.Random(n), **how) for n in range(1000)]
        return sum("NOISE" in text for text in texts)

    assert 150 < noised() < 250 and noised(asked=True) == noised(plain=True) == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_relations_name_both_things_in_their_places(world, language):
    """The first thing is left or above: words for that stand nearer to its name, or to none, in every template."""
    for relation in range(len(RELATIONS)):
        for template in words(language).relations[relation]:
            assert "{a}" in template and "{b}" in template
    things = (Placed(1, 0, 0.26, 0.5, 0.4), Placed(2, 0, 0.74, 0.5, 0.4))
    texts = {
        world.captions.caption(Picture("scene", 0, things, relation), language, random.Random(n))
        for relation in range(2)
        for n in range(40)
    }
    assert len(texts) > 10


def test_words_of_every_language_and_of_no_other():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(LANGUAGES)
    with pytest.raises(ValueError, match="'xx'"):
        words("xx")
    assert len(PLACES) == 9 and len(STYLES) == 5
