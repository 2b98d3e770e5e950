"""Prior Sample's negative text, its start from an embedding, and what it says of inputs without effect."""

import made_up_family
import pytest
import torch

from unclip.nodes import defaults
from unclip.nodes.clip import UnclipTextEncode, UnclipTextEncodeLines
from unclip.nodes.host import oom_retry
from unclip.nodes.inputs import InputError
from unclip.nodes.loaders import hand_out
from unclip.nodes.prior import UnclipPriorSample
from unclip.nodes.sockets import EmbeddingValue, FamilyError
from unclip.unclip_core import pipelines
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.models import PARTS


def parts_of(model):
    return {name: hand_out(model, name, torch.float32) for name in PARTS}


def read(parts, prompt):
    returned = UnclipTextEncode().run(parts["clip"], prompt)
    return (returned["result"] if isinstance(returned, dict) else returned)[0]


def read_lines(parts, lines):
    returned = UnclipTextEncodeLines().run(parts["clip"], lines)
    return (returned["result"] if isinstance(returned, dict) else returned)[0]


@pytest.fixture(scope="module")
def parts():
    return parts_of(load_model(SHAPES))


@pytest.fixture(scope="module")
def texts(parts):
    return [read(parts, prompt) for prompt in ("a red circle", "")]


def run(*values, **inputs):
    returned = UnclipPriorSample().run(*values, candidates=1, keep=1, **inputs)
    return returned["result"][0].embeds, returned["ui"]["text"][0]


@pytest.fixture(scope="module")
def picture(parts):
    embeds = torch.nn.functional.normalize(torch.randn(1, parts["clip"].part.adapter.embed_dim), dim=1)
    return EmbeddingValue(embeds, parts["clip"].family, "image")


def test_a_negative_text_and_a_start_are_the_cores(parts, texts, picture):
    text, away = texts
    drawn, _ = run(parts["prior"], text, 7, 4, 3.0, "ddim", negative=away, embedding=picture, strength=0.5)
    expected = pipelines.sample_prior(
        parts["prior"].part, text.condition, seeds=[7], steps=4, guidance_scale=3.0, sampler="ddim",
        negative=away.condition, start=picture.embeds, strength=0.5,
    )  # fmt: skip
    torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=1e-6)


def test_many_prompts_are_drawn_in_chunks_with_the_same_result(parts, picture, monkeypatch):
    """Whole prompts, each with its own rows of what lies beside the text."""
    text, away = (
        read_lines(parts, lines) for lines in ("a red circle\na blue star\na ring", "a heart\na cross\na box")
    )
    start = EmbeddingValue(torch.cat([picture.embeds, -picture.embeds, picture.embeds.roll(1, 1)]), picture.family, "x")
    settings = {"seed": 7, "steps": 3, "guidance_scale": 3.0, "negative": away, "embedding": start, "strength": 0.7}
    node = UnclipPriorSample()
    whole = node.run(parts["prior"], text, candidates=2, keep=2, **settings)["result"][0]
    chunks = []
    draw = pipelines.sample_prior
    monkeypatch.setattr(pipelines, "sample_prior", lambda *a, **k: chunks.append(len(k["seeds"])) or draw(*a, **k))
    monkeypatch.setattr(defaults, "EMBEDDINGS_AT_ONCE", 4)
    split = node.run(parts["prior"], text, candidates=2, keep=2, **settings)["result"][0]
    assert chunks == [2, 1] and split.prompts == whole.prompts
    torch.testing.assert_close(split.embeds, whole.embeds, rtol=1e-4, atol=1e-5)


def test_a_start_for_some_of_the_prompts_is_refused(parts, picture):
    text = read_lines(parts, "a red circle\na blue star\na ring")
    two = EmbeddingValue(picture.embeds.repeat(2, 1), picture.family, "x")
    with pytest.raises(ValueError, match="2"):
        UnclipPriorSample().run(parts["prior"], text, steps=2, embedding=two)


def test_the_bar_counts_the_steps_that_are_taken(parts, texts, picture, monkeypatch):
    totals = []
    progress = oom_retry.progress
    monkeypatch.setattr(oom_retry, "progress", lambda total, *rest: totals.append(total) or progress(total, *rest))
    run(parts["prior"], texts[0], 7, 10, embedding=picture, strength=0.3)
    run(parts["prior"], texts[0], 7, 10)
    assert totals == [3, 10]


def test_without_guidance_the_negative_text_is_said_to_have_no_effect(parts, texts):
    _, said = run(parts["prior"], texts[0], 7, 2, 1.0, negative=texts[1])
    assert said.endswith("Without guidance the negative text has no effect.")


def test_of_another_family_neither_is_taken(parts, texts, picture):
    strange = EmbeddingValue(picture.embeds, "karlo", "image")
    with pytest.raises(FamilyError, match="The embedding belongs to the model family 'karlo'"):
        run(parts["prior"], texts[0], 7, 2, embedding=strange)


@pytest.mark.parametrize(("name", "value"), [("strength", 0.0), ("strength", float("nan")), ("one_pass_noise", "no")])
def test_what_is_out_of_range_is_refused(parts, texts, name, value):
    with pytest.raises(InputError, match=name if name == "strength" else "no"):
        run(parts["prior"], texts[0], 7, 2, **{name: value})


def test_a_prior_of_one_pass_says_what_it_does_not_read(tmp_path):
    with made_up_family.registered():
        parts = parts_of(load_model(made_up_family.write_folder(tmp_path / "made-up")))
    text = read(parts, "cat")
    drawn, said = run(parts["prior"], text, 7, negative=text, one_pass_noise="zeros")
    assert said.endswith("have no effect. Nor has the negative text, which guidance alone reads.")
    torch.testing.assert_close(drawn, text.condition.embeds * 0.5)
    picture = EmbeddingValue(text.condition.embeds, text.family, "image")
    with pytest.raises(ValueError, match="cannot start from an image"):
        run(parts["prior"], text, 7, embedding=picture)
