"""How text becomes one image by way of several candidates: some are drawn, fewer decoded, one is kept."""

import pytest
import torch

from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import StageSettings
from unclip.unclip_core.pipelines import (
    candidates_noise,
    encode_image,
    encode_text,
    sample_decoder,
    sample_prior,
    text_to_image,
)
from unclip.unclip_core.pipelines.settings import Settings

PROMPTS, SEEDS = ["a red circle", "a blue square on white"], [3, 8]
QUICK = {"prior": StageSettings(2), "decoder": StageSettings(2)}


@pytest.fixture(scope="module")
def model():
    return load_model("bundled (shapes)")


@pytest.mark.parametrize(("settings", "decoded"), [
    (Settings(**QUICK), 2),
    (Settings(**QUICK, decoded=4), 4),
    (Settings(**QUICK, candidates=3, decoded=9), 3),
    (Settings(**QUICK, candidates=1), 1),
])  # fmt: skip
def test_the_nearest_embeddings_are_decoded_and_the_nearest_image_is_kept(model, settings, decoded):
    found = text_to_image(model, PROMPTS, SEEDS, settings, upsampled=False)
    text = encode_text(model.clip, PROMPTS)
    every = sample_prior(model.prior, text, seeds=SEEDS, candidates=settings.candidates, keep=None, steps=2,
                         guidance_scale=1.0).view(2, settings.candidates, -1)  # fmt: skip
    likeness = torch.nn.functional.cosine_similarity(every, text.embeds[:, None], dim=-1)
    order = likeness.argsort(dim=1, descending=True)[:, :decoded]
    nearest = torch.cat([every[row][order[row]] for row in range(2)])
    torch.testing.assert_close(found.embeds, nearest, rtol=0, atol=1e-5)
    rows = torch.arange(2).repeat_interleave(decoded)
    images = sample_decoder(model.decoder, nearest, text=text.select(rows), seeds=[SEEDS[row] for row in rows],
                            noise=candidates_noise(SEEDS, decoded, "decoder"), steps=2, guidance_scale=1.0)  # fmt: skip
    scores = torch.nn.functional.cosine_similarity(encode_image(model.clip, images), text.embeds[rows], dim=-1)
    best = images.view(2, decoded, *images.shape[1:])[torch.arange(2), scores.view(2, decoded).argmax(dim=1)]
    torch.testing.assert_close(found.small, best, rtol=0, atol=1e-4)


def test_by_default_two_of_four_are_decoded_as_in_the_template(model):
    assert (Settings().candidates, Settings().decoded) == (4, 2)
    assert len(text_to_image(model, PROMPTS, SEEDS, Settings(**QUICK), upsampled=False).embeds) == 4
