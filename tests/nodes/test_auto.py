"""Inputs left at auto: each model's own settings, the numbers that a node needs instead, and what the node says."""

from types import SimpleNamespace

import made_up_family
import pytest
import torch

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import host, sampling
from unclip.nodes.host import oom_retry
from unclip.nodes.loaders import UnclipLoadModel
from unclip.nodes.sockets import EmbeddingValue

SIDE, WIDTH = 16, 16
PRIOR, DECODER = (3, 1.5, "ddpm"), (4, 3.0, "ddim")  # as conftest has `stated` state them
NAMES = ("steps", "guidance_scale", "sampler")


def run(node_id, *values, **widgets):
    """(outputs, text on the node)"""
    node = NODE_CLASS_MAPPINGS[node_id]
    assert node.HAS_INTERMEDIATE_OUTPUT
    with torch.inference_mode():
        returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    (text,) = returned["ui"]["text"]
    return returned["result"], text


def images(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def embedding():
    return EmbeddingValue(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(2)), "test", "prior")


@pytest.fixture(scope="module")
def text(stated):
    return NODE_CLASS_MAPPINGS["UnclipTextEncode"]().run(stated.clip, "a red circle")["result"][0]


def mask():
    holes = torch.zeros(1, SIDE, SIDE)
    holes[:, :, SIDE // 2 :] = 1
    return holes


# node, its values, the explicit numbers that auto stands for, and what the node says of auto
CASES = {
    "UnclipPriorSample": (
        lambda parts, text: (parts.prior, text), PRIOR, "3 steps, guidance 1.5, ddpm: the model's own"
    ),
    "UnclipDecoderSample": (
        lambda parts, text: (parts.decoder, embedding()), DECODER, "4 steps, guidance 3, ddim: the model's own"
    ),
    "UnclipDenoisingFilm": (
        lambda parts, text: (parts.decoder, embedding()), DECODER, "4 steps, guidance 3, ddim: the model's own"
    ),
    "UnclipUpscale": (lambda parts, text: (parts.upsampler, images(1, 8, 8, 3)), (2,), "2 steps: the model's own"),
    "UnclipInpaint": (
        lambda parts, text: (parts.decoder, embedding(), images(1, SIDE, SIDE, 3), mask()), (25, 3.0),
        "25 steps: this node's own; guidance 3: the model's own",
    ),
    "UnclipOutpaint": (
        lambda parts, text: (parts.decoder, embedding(), images(1, SIDE, SIDE, 3), 0, 0, 8, 0), (25, 3.0),
        "25 steps: this node's own; guidance 3: the model's own",
    ),
    "UnclipDdimInversion": (
        lambda parts, text: (parts.decoder, embedding(), images(1, SIDE, SIDE, 3)), (50, 1.0),
        "50 steps, guidance 1: this node's own",
    ),
}  # fmt: skip


def tensors(outputs):
    """The numbers of a node's outputs."""
    found = [getattr(value, "embeds", getattr(value, "noise", value)) for value in outputs]
    return [value for value in found if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("node_id", CASES)
def test_auto_is_what_the_node_says_that_it_is(stated, text, node_id):
    values, numbers, words = CASES[node_id]
    explicit = dict(zip(NAMES, numbers, strict=False))
    once = {"resamples": 1} if "resamples" in NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()["required"] else {}
    auto, said = run(node_id, *values(stated, text), **once)
    same, said_of_explicit = run(node_id, *values(stated, text), **explicit, **once)
    assert said.splitlines()[-1] == words
    assert said_of_explicit.splitlines()[-1].endswith(": as set")
    assert len(tensors(auto)) == len(tensors(same)) > 0
    for one, other in zip(tensors(auto), tensors(same), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("node_id", CASES)
def test_every_sampling_input_starts_at_auto(node_id):
    required = NODE_CLASS_MAPPINGS[node_id].INPUT_TYPES()["required"]
    found = {name: required[name][1]["default"] for name in NAMES if name in required}
    assert found and found == {name: sampling.AUTO[name] for name in found}
    assert all("auto" in required[name][1]["tooltip"] for name in found)


def test_no_other_node_samples():
    """Steps of an ascent are none of a model's stages."""
    named = {key for key, node in NODE_CLASS_MAPPINGS.items() if "steps" in node.INPUT_TYPES().get("required", {})}
    assert named == {*CASES, "UnclipClipOptimise"}


def test_some_inputs_may_be_set_and_others_left(stated):
    mixed, said = run("UnclipDecoderSample", stated.decoder, embedding(), steps=2, sampler="deis")
    explicit, _ = run("UnclipDecoderSample", stated.decoder, embedding(), 0, 2, 3.0, "deis")
    assert torch.equal(mixed[0], explicit[0])
    assert said == "2 steps, deis: as set; guidance 3: the model's own"


def test_a_prior_of_one_pass_says_that_it_needs_no_steps(tmp_path, monkeypatch):
    made_up_family.write_folder(tmp_path / "strange")
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path))
    bars = []
    with made_up_family.registered():
        clip, prior, *_ = UnclipLoadModel().run("strange")
    node = NODE_CLASS_MAPPINGS["UnclipTextEncode"]()
    returned = node.run(clip, "a red cat")
    (text,) = returned["result"] if isinstance(returned, dict) else returned

    class Counted(host.Progress):
        def close_bar(self):
            super().close_bar()
            bars.append((self.done, self.total))

    monkeypatch.setattr(oom_retry, "progress", Counted)
    (drawn, _), said = run("UnclipPriorSample", prior, text, steps=7)
    assert said.endswith("\nThis prior maps the text in one pass: steps, guidance and sampler have no effect.")
    assert bars == [(1, 1)]

    class Unread:
        family = prior.family

        @property
        def part(self):
            pytest.fail("A decoder was read for a preview that there is none of.")

    monkeypatch.setattr(host, "wants_preview", lambda: True)
    (again, _), said = run("UnclipPriorSample", prior, text, steps=7, decoder=Unread())
    assert said.endswith("sampler have no effect. Nor is there a preview: a pass shows nothing on its way.")
    assert torch.equal(again.embeds, drawn.embeds)


def test_karlo_says_its_own(karlo_models, monkeypatch):
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(karlo_models))
    parts = SimpleNamespace(
        **dict(zip(("clip", "prior", "decoder", "upscaler"), UnclipLoadModel().run("karlo-v1-alpha"), strict=True))
    )
    (text,) = NODE_CLASS_MAPPINGS["UnclipTextEncode"]().run(parts.clip, "a red frog")["result"]
    (made, _), said = run("UnclipPriorSample", parts.prior, text)
    assert said.endswith("\n25 steps, guidance 4, ddpm: the model's own")
    (image,), said = run("UnclipDecoderSample", parts.decoder, made, text=text)
    assert said == "25 steps, guidance 8, ddpm: the model's own"
    assert run("UnclipUpscale", parts.upscaler, image)[1] == "7 steps: the model's own"
