"""The decoder node: image embeddings to small images."""

from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.clip import TextCondition
from ..unclip_core.models import Decoder
from ..unclip_core.noise import sample_seeds
from . import defaults, host, inputs, sockets
from .inputs import InputError
from .sockets import EmbeddingValue, PartValue, TextValue


class UnclipDecoderSample:
    """Node: draws images of image embeddings."""

    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = "Draws small images that show what the image embeddings say. Upscale makes them larger."
    SEARCH_ALIASES = ["unclip decoder", "embedding to image", "dall-e 2 decoder", "image variations"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The images: all of the first embedding, then all of the second, and so on.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "decoder": (sockets.DECODER, {"tooltip": "The decoder of Load unCLIP Model."}),
                "embedding": (
                    sockets.EMBEDDING,
                    {"tooltip": "What to draw: of Prior Sample, CLIP Image Encode or Embedding Interpolate."},
                ),
                "seed": inputs.seed_widget(),
                "steps": inputs.steps_widget(
                    defaults.DECODER_STEPS, "Sampling steps. More is slower."
                ),
                "guidance_scale": inputs.guidance_widget(
                    defaults.DECODER_GUIDANCE,
                    "How strictly to follow the embedding. 1: guidance off; higher: clearer, less varied.",
                ),
                "sampler": inputs.sampler_widget(defaults.DECODER_SAMPLER, advanced=True),
                "eta": inputs.float_widget(
                    defaults.ETA,
                    defaults.ETA_MIN,
                    defaults.ETA_MAX,
                    0.05,
                    "Fresh noise in each step of ddim: 0 none, 1 as much as ddpm. Other samplers ignore it.",
                    advanced=True,
                ),
                "batch_size": inputs.int_widget(
                    defaults.BATCH_SIZE, 1, defaults.BATCH_MAX, "Images to draw of each embedding."
                ),
            },
            "optional": {
                "text": (
                    sockets.TEXT,
                    {"tooltip": "The prompt again, which the decoder can read too. Leave open to vary an image."},
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls, guidance_scale: float = defaults.DECODER_GUIDANCE, eta: float = defaults.ETA
    ) -> bool | str:
        """ComfyUI's own check of the range lets NaN pass. It hands over None for what a link brings."""
        return inputs.validated(
            lambda: guidance_scale is None or inputs.check_guidance(guidance_scale),
            lambda: eta is None or check_eta(eta),
        )

    def run(
        self,
        decoder: PartValue[Decoder],
        embedding: EmbeddingValue,
        seed: int = defaults.SEED,
        steps: int = defaults.DECODER_STEPS,
        guidance_scale: float = defaults.DECODER_GUIDANCE,
        sampler: str = defaults.DECODER_SAMPLER,
        eta: float = defaults.ETA,
        batch_size: int = defaults.BATCH_SIZE,
        text: TextValue | None = None,
    ) -> tuple[Tensor]:
        """Draw `batch_size` images of each of the `B` embeddings: `[B * batch_size, H, W, 3]` in 0..1.

        Image `j` of every embedding starts from the same noise, that of seed + j. So an image does not depend
        on its neighbours in the batch, and an interpolation changes smoothly from frame to frame.
        """
        sockets.require_family(embedding, "embedding", decoder.family, "decoder")
        batch_size = inputs.check_int("batch_size", batch_size, 1, defaults.BATCH_MAX)
        settings = {
            "steps": inputs.check_steps(steps),
            "guidance_scale": inputs.check_guidance(guidance_scale),
            "sampler": inputs.check_sampler(sampler),
            "eta": check_eta(eta),
        }
        count = len(embedding.embeds)
        seeds = sample_seeds(inputs.check_seed(seed), batch_size) * count
        embeds = embedding.embeds.repeat_interleave(batch_size, dim=0)
        condition = text_rows(text, decoder, count, batch_size)

        def draw(rows: slice, on_step: host.OnStep) -> Tensor:
            said = condition and condition.select(range(len(embeds))[rows]).to(host.device())
            seen = embeds[rows].to(host.device())
            return pipelines.sample_decoder(
                decoder.part, seen, text=said, seeds=seeds[rows], on_step=on_step, **settings
            )

        with host.loaded(decoder):
            return (host.in_turns(draw, len(embeds), defaults.IMAGES_AT_ONCE, steps, "Decoder"),)


def check_eta(value: Any) -> float:
    """`value` as eta.

    Raises:
        InputError: it is not a finite number, or out of range.
    """
    return inputs.check_float("eta", value, defaults.ETA_MIN, defaults.ETA_MAX)


def text_rows(
    text: TextValue | None, decoder: PartValue[Decoder], count: int, batch_size: int
) -> TextCondition | None:
    """The condition for each of `count * batch_size` images: one prompt for all, or one for each embedding.

    Raises:
        FamilyError: the text is of another family than the decoder.
        InputError: the numbers of prompts and embeddings do not fit.
    """
    if text is None:
        return None
    sockets.require_family(text, "text", decoder.family, "decoder")
    prompts = len(text.prompts)
    if prompts not in (1, count):
        raise InputError(f"{prompts} prompts do not fit {count} embeddings: give one, or one for each.")
    return text.condition.select([image // batch_size % prompts for image in range(count * batch_size)])
