"""The measure of edits: its scenes, and its shares against images whose outcome is known."""

from dataclasses import replace

import pytest
import torch

from unclip.unclip_core.diffusion.inversion import Inverted
from unclip.unclip_core.evaluate import edits
from unclip.unclip_core.world.render import render
from unclip.unclip_core.world.vocabulary import HELD_OUT


def test_scenes_differ_in_colour_alone_and_show_no_held_out_pair():
    scenes, others = edits.recolored(60, seed=3)
    assert edits.recolored(60, seed=3) == (scenes, others) and edits.recolored(60, seed=4)[0] != scenes
    for scene, other in zip(scenes, others, strict=True):
        (one,), (two,) = scene.things, other.things
        assert one.color != two.color
        assert (one.shape, one.size, one.x, one.y) == (two.shape, two.size, two.x, two.y)
        assert (scene.background, scene.place) == (other.background, other.place)
        assert not {(one.shape, one.color), (two.shape, two.color)} & HELD_OUT
    assert len({other.things[0].color for other in others}) > 5


class FakeModel:
    """Knows images and captions by some numbers of theirs."""

    class clip:  # noqa: N801
        class adapter:  # noqa: N801
            image_size = 64

    class decoder:  # noqa: N801
        image_size = 64


def fake_text(_, captions):
    return torch.randn(len(captions), 8, generator=torch.Generator().manual_seed(len(str(captions))))


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(edits, "placed_model", lambda *_: FakeModel)
    monkeypatch.setattr(edits, "encode_image", lambda _, images: images.flatten(1)[:, :8] + torch.rand(8) + 0.1)
    monkeypatch.setattr(edits, "embed_text", fake_text)
    return monkeypatch


def draws(fake, *sheets):
    """Let the decoder draw these sheets of scenes, call by call, and the last one from then on; returns its calls."""
    calls = []

    def drawn(*_, **settings):
        calls.append(settings)
        return render(sheets[min(len(calls), len(sheets)) - 1], 64).permute(0, 2, 3, 1)

    fake.setattr(edits, "sample_decoder", drawn)
    return calls


def test_a_decoder_that_draws_the_old_scenes_turns_no_colour_and_keeps_the_rest(fake, capsys):
    """Images of the unedited scenes: halfway all is right, of the text diff only what should stay."""
    draws(fake, edits.recolored(6, seed=0)[0])
    figures = edits.evaluate_edits(n=6, seed=0)
    assert figures["halfway"] == {"count": 1.0, "shape": 1.0, "place": 1.0, "all": 1.0}
    assert list(figures["text_diff"]) == [f"{theta:g}" for theta in edits.THETAS]
    for row in figures["text_diff"].values():
        assert row == {"color": 0.0, "shape": 1.0, "place": 1.0, "all": 0.0}
    assert "halfway" in capsys.readouterr().out


def test_of_the_ways_that_are_asked_for_the_best_is_told(fake, capsys):
    scenes, others = edits.recolored(4, seed=0)
    draws(fake, scenes, scenes, others[:2] + scenes[2:], others, scenes)
    figures = edits.evaluate_edits(n=4, thetas=(0.2, 0.35, 0.4, 0.5))
    assert [row["all"] for row in figures["text_diff"].values()] == [0.0, 0.5, 1.0, 0.0]
    assert list(figures["text_diff"]) == ["0.2", "0.35", "0.4", "0.5"] and figures["theta"] == 0.4
    assert "best θ: 0.4" in capsys.readouterr().out


def test_two_things_halfway_count_as_wrong(fake):
    scenes, _ = edits.recolored(2, seed=0)
    (thing,) = scenes[0].things
    crowd = replace(scenes[0], things=(replace(thing, x=0.25, y=0.25, size=0), replace(thing, x=0.75, y=0.75, size=0)))
    draws(fake, [crowd, scenes[1]])
    assert edits.evaluate_edits(n=2, thetas=(0.3,))["halfway"]["count"] == 0.5


def test_an_inverted_edit_is_drawn_from_the_images_noise_as_it_was_found(fake):
    """The same noise for every way, by plain ddim without guidance; halfway is drawn as ever."""
    calls = draws(fake, edits.recolored(3, seed=0)[0])
    asked = []

    def invert(decoder, images, embeds, **settings):
        asked.append(settings)
        return Inverted(images.permute(0, 3, 1, 2) * 7, torch.full((len(images),), 0.5))

    fake.setattr(edits, "invert_decoder", invert)
    edits.evaluate_edits(n=3, thetas=(0.2, 0.3), inverted=True)
    images = render(edits.recolored(3, seed=0)[0], 64)
    assert calls[0]["start"] is None and not {"steps", "guidance_scale", "sampler"} & set(calls[0])  # the model's own
    for call in calls[1:]:
        torch.testing.assert_close(call["start"], images * 7)
        assert call["start_error"].tolist() == [0.5] * 3
        assert (call["sampler"], call["guidance_scale"]) == ("ddim", 1.0)
        assert call["steps"] == asked[0]["steps"]
    assert len(asked) == 1 and asked[0]["guidance_scale"] == 1.0


@pytest.mark.parametrize("wrong", [{"n": 0}, {"thetas": ()}, {"thetas": (0.3, 1.5)}, {"thetas": (float("nan"),)}])
def test_nothing_to_measure_is_refused(wrong):
    with pytest.raises(ValueError, match="at least 1 is needed"):
        edits.evaluate_edits(**{"n": 2, **wrong})
