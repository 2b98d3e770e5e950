"""The DDIM inversion node."""

from typing import Any

import torch
from torch import Tensor

from ..unclip_core.models import Decoder, StageSettings
from ..unclip_core.pipelines import editing
from . import defaults, host, inputs, sampling, sockets
from .batches import common_count, expand_batch
from .drawing import decoder_input, rows_of, text_rows
from .images import square, to_rgb
from .sockets import EmbeddingValue, NoiseValue, PartValue, TextValue


class UnclipDdimInversion:
    """Node: an image to the noise from which the decoder draws it."""

    ID = "UnclipDdimInversion"
    DISPLAY_NAME = "DDIM Inversion (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Finds the noise from which the decoder draws an image under its own embedding. From embedding and noise, "
        "Decoder Sample draws it again; from another embedding and this noise, it draws that, and keeps the rest."
    )
    SEARCH_ALIASES = ["invert", "ddim inversion", "reconstruct", "image to noise", "edit image"]
    RETURN_TYPES = (sockets.NOISE, "IMAGE")
    RETURN_NAMES = ("noise", "image")
    OUTPUT_TOOLTIPS = (
        "The noise, for Decoder Sample: with ddim, and the same steps, guidance and text, it draws the image.",
        "The image as the decoder sees it: a square in its size.",
    )
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "decoder": decoder_input(),
                "embedding": (
                    sockets.EMBEDDING,
                    {"tooltip": "The image's own embedding, of CLIP Image Encode: one for all images, or one each."},
                ),
                "image": ("IMAGE", {"tooltip": "The image. It is resized and cropped to the decoder's square."}),
                "steps": sampling.steps_widget(
                    "Steps back to the noise. The more, the better the image comes back. 0: auto, "
                    f"{defaults.INVERSION.steps}."
                ),
                "guidance_scale": sampling.guidance_widget(
                    "Set the same in Decoder Sample. 1, which is off, inverts best. -1: auto, 1."
                ),
                "iterations": inputs.int_widget(
                    defaults.INVERSION_ITERATIONS,
                    1,
                    defaults.INVERSION_ITERATIONS_MAX,
                    "How often each step is corrected. 1 is mostly enough; more takes longer.",
                    advanced=True,
                ),
            },
            "optional": {
                "text": (sockets.TEXT, {"tooltip": "The prompt, if Decoder Sample gets it too."}),
            },
        }

    VALIDATE_INPUTS = inputs.checking(guidance_scale=sampling.GUIDANCE.check)

    def run(
        self,
        decoder: PartValue[Decoder],
        embedding: EmbeddingValue,
        image: Tensor,
        steps: int = defaults.AUTO_STEPS,
        guidance_scale: float = defaults.AUTO_GUIDANCE,
        iterations: int = defaults.INVERSION_ITERATIONS,
        text: TextValue | None = None,
    ) -> dict[str, Any]:
        """Invert each of the images `[B, H, W, C]` under its embedding, or under the one for all."""
        sockets.require_family(embedding, "embedding", decoder.family, "decoder")
        chosen = sampling.choose(
            {"steps": steps, "guidance_scale": guidance_scale}, sampling.nodes_own(**vars(defaults.INVERSION))
        )
        settings = {
            **chosen.settings,
            "iterations": inputs.check_int("iterations", iterations, 1, defaults.INVERSION_ITERATIONS_MAX),
        }
        images = square(to_rgb(image), decoder.part.image_size)
        count = common_count(image=len(images), embedding=len(embedding.embeds))
        images, embeds = expand_batch(images, count), expand_batch(embedding.embeds, count)
        condition, error = text_rows(text, decoder, count), torch.zeros(count)

        def invert(rows: slice, on_step: host.OnStep) -> Tensor:
            seen, said = embeds[rows].to(host.device()), rows_of(condition, rows)
            found = editing.invert_decoder(decoder.part, images[rows], seen, text=said, on_step=on_step, **settings)
            error[rows] = found.error.to(error)
            return found.noise

        with host.loaded(decoder):
            total = (chosen.steps - 1) * iterations + 1
            preview = decoder.part.codec.preview
            noise = host.run_in_chunks(invert, count, defaults.IMAGES_AT_ONCE, total, "Inversion", preview)
        found_with = StageSettings(**chosen.settings, sampler=defaults.INVERSION.sampler)
        found = NoiseValue(noise, decoder.family, error, found_with)
        return host.with_text((found, images.to(host.intermediate_device())), chosen.text)
