"""The rerank node: of several images, those that CLIP finds nearest to a text."""

from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.embedding.ranking import rank
from ..unclip_core.models import Clip
from . import defaults, host, inputs, sockets
from .images import to_rgb
from .inputs import InputError
from .scores import scores_text
from .sockets import PartValue, TextValue


class UnclipRerank:
    """Node: keeps the images that go best with a text."""

    ID = "UnclipRerank"
    DISPLAY_NAME = "Rerank (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = "Keeps those of several images that CLIP finds nearest to the text, the best first."
    SEARCH_ALIASES = ["clip score", "rerank", "best of", "select image", "dall-e rerank"]
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "scores")
    OUTPUT_TOOLTIPS = (
        "The images that were kept, for each prompt the best first.",
        "The similarity of every image with its prompt, the best first; the node shows it too.",
    )
    FUNCTION = "run"
    OUTPUT_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "clip": (sockets.CLIP, {"tooltip": "The CLIP of Load unCLIP Model."}),
                "text": (sockets.TEXT, {"tooltip": "The text that the images should show."}),
                "image": ("IMAGE", {"tooltip": "The images to choose from, as many for each prompt."}),
                "keep": inputs.int_widget(
                    defaults.KEEP, 1, defaults.CANDIDATES_MAX, "How many images to keep of each prompt."
                ),
            }
        }

    def run(self, clip: PartValue[Clip], text: TextValue, image: Tensor, keep: int = defaults.KEEP) -> dict[str, Any]:
        """Keep the best `keep` images of each prompt of `text`."""
        sockets.require_family(text, "text", clip.family, "CLIP")
        keep = inputs.check_int("keep", keep, 1, defaults.CANDIDATES_MAX)
        images, prompts = to_rgb(image), len(text.prompts)
        if len(images) % prompts or keep > len(images) // prompts:
            raise InputError(
                f"Cannot keep {keep} images a prompt: there are {len(images)} images for {prompts} prompts. "
                "Draw more, or lower 'keep'."
            )

        def encode(rows: slice, on_step: host.OnStep) -> Tensor:
            return pipelines.encode_image(clip.part, images[rows])

        with host.loaded(host.seeing(clip)):
            embeds = host.run_in_chunks(encode, len(images), defaults.IMAGES_AT_ONCE, 1, "CLIP")
        ranking = rank(embeds, text.condition.embeds, keep)
        scores = scores_text(ranking, text.prompts)
        return host.with_text((images[ranking.rows.to(images.device)], scores), scores)
