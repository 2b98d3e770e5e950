"""The measure of edits: its scenes, and its shares against pictures whose outcome is known."""

import torch

from unclip.unclip_core.train import edits
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


def test_a_decoder_that_draws_the_old_scenes_turns_no_colour_and_keeps_the_rest(monkeypatch, capsys):
    """Pictures of the unedited scenes: halfway all is right, of the text diff only what should stay."""
    scenes, _ = edits.recolored(6, seed=0)
    pictures = render(scenes, 64).permute(0, 2, 3, 1)

    class Model:
        class clip:  # noqa: N801
            class adapter:  # noqa: N801
                image_size = 64

        decoder = None

    class Text:
        def __init__(self, captions):
            self.embeds = torch.randn(len(captions), 8, generator=torch.Generator().manual_seed(len(str(captions))))

    monkeypatch.setattr(edits, "load_model", lambda _: Model)
    monkeypatch.setattr(edits, "encode_image", lambda _, images: images.flatten(1)[:, :8] + torch.rand(8) + 0.1)
    monkeypatch.setattr(edits, "encode_text", lambda _, captions: Text(captions))
    monkeypatch.setattr(edits, "sample_decoder", lambda *_, **__: pictures)
    figures = edits.evaluate_edits(n=6, seed=0)
    assert figures["halfway"] == {"count": 1.0, "shape": 1.0, "place": 1.0, "three": 1.0}
    assert list(figures["text_diff"]) == [str(theta) for theta in edits.THETAS]
    for row in figures["text_diff"].values():
        assert row == {"color": 0.0, "shape": 1.0, "place": 1.0, "three": 0.0}
    assert "halfway" in capsys.readouterr().out
