"""The inpainting and outpainting nodes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..unclip_core.diffusion.noise import sample_seeds
from ..unclip_core.models import Decoder
from ..unclip_core.pipelines import editing
from . import canvas, defaults, host, inputs, sampling, sockets
from .batches import common_count, expand_batch
from .canvas import check_drawable, check_negative, negative_input
from .drawing import decoder_input, rows_of, sampling_inputs, text_input, text_rows
from .images import to_rgb
from .inputs import InputError
from .masks import fit_mask, mask_report
from .sampling import Chosen
from .sockets import EmbeddingValue, PartValue, TextValue

MADE_ONCE = "This decoder was trained for inpainting: each step is made once, and 'resamples' has no effect."


def filling_inputs() -> dict[str, inputs.Widget]:
    """Return the required inputs that both nodes end with."""
    return {
        **sampling_inputs(f"Sampling steps. More is slower. 0: auto, {defaults.INPAINT_STEPS}."),
        "resamples": inputs.int_widget(
            defaults.RESAMPLES,
            1,
            defaults.RESAMPLES_MAX,
            "How often each step is made (RePaint). More fits the new to the old better, and takes longer.",
        ),
    }


def check_margin_widgets(
    left: Any = defaults.MARGIN,
    top: Any = defaults.MARGIN,
    right: Any = defaults.MARGIN,
    bottom: Any = defaults.MARGIN,
) -> None:
    """Check Outpaint's margins together.

    Raises:
        InputError: as `check_margins`.
    """
    check_margins(left=left, top=top, right=right, bottom=bottom)


class UnclipInpaint:
    """Node: draws the masked part of an image anew."""

    ID = "UnclipInpaint"
    DISPLAY_NAME = "Inpaint (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Draws the masked part of an image anew, as the embedding says, and keeps every other pixel as it is. "
        "It is drawn at the decoder's size and put into the image at the image's own."
    )
    SEARCH_ALIASES = ["inpaint", "mask", "fill", "repaint", "edit", "edit image", "img2img"]
    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("image", "small")
    OUTPUT_TOOLTIPS = (
        "The image in its own size, its unmasked pixels untouched.",
        "The same in the decoder's size: for Upscale, which draws what the masked part lacks in detail.",
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
                    {"tooltip": "What the whole image should show, of Prior Sample or CLIP Image Encode."},
                ),
                "image": ("IMAGE", {"tooltip": "The image to change."}),
                "mask": ("MASK", {"tooltip": "Where to draw: of the mask editor (right-click on Load Image)."}),
                **filling_inputs(),
            },
            "optional": {"text": text_input(), "negative": negative_input()},
        }

    VALIDATE_INPUTS = inputs.checking(guidance_scale=sampling.GUIDANCE.check)

    def run(
        self,
        decoder: PartValue[Decoder],
        embedding: EmbeddingValue,
        image: Tensor,
        mask: Tensor,
        seed: int = defaults.SEED,
        steps: int = defaults.AUTO_STEPS,
        guidance_scale: float = defaults.AUTO_GUIDANCE,
        resamples: int = defaults.RESAMPLES,
        text: TextValue | None = None,
        negative: EmbeddingValue | None = None,
    ) -> dict[str, Any]:
        """Fill the mask of each image `[B, H, W, C]`, under its embedding or the one for all; all by seed + i."""
        images = to_rgb(image)
        holes = fit_mask(mask, *images.shape[1:3])
        warnings, extent = mask_report(holes)
        small, small_holes = fit_decoder(decoder.part, images, holes)
        check_canvas(small, decoder.part)
        chosen = choose(decoder, steps, guidance_scale)
        filled = fill(decoder, embedding, small, small_holes, text, seed, chosen, resamples, "Inpaint", negative)
        whole = editing.in_own_size(filled, images, holes)
        said = [*(warnings or [extent]), chosen.text, *unread(decoder.part, chosen, text, negative)]
        return host.with_text((whole, filled), "\n".join(said), warnings)


class UnclipOutpaint:
    """Node: draws an image on beyond its edges."""

    ID = "UnclipOutpaint"
    DISPLAY_NAME = "Outpaint (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Draws an image on beyond its edges, by any margin on each side, in overlapping squares of the decoder's size. "
        "The image itself is kept as it is."
    )
    SEARCH_ALIASES = ["outpaint", "extend", "uncrop", "expand image", "zoom out"]
    RETURN_TYPES = ("IMAGE", "IMAGE", "MASK", "IMAGE")
    RETURN_NAMES = ("image", "known", "mask", "small")
    OUTPUT_TOOLTIPS = (
        "The larger image, in the scale of the one you gave, whose pixels are untouched.",
        "The image you gave, in its own scale, on a canvas with the margins: for Upscale.",
        "Where that canvas was drawn on: for Upscale.",
        "The larger image in the decoder's scale: for Upscale, which draws what the margins lack in detail.",
    )
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        sides = ("left", "top", "right", "bottom")
        return {
            "required": {
                "decoder": decoder_input(),
                "embedding": (
                    sockets.EMBEDDING,
                    {"tooltip": "What the image should show, of Prior Sample or CLIP Image Encode."},
                ),
                "image": ("IMAGE", {"tooltip": "The image; it is resized so that its shorter edge fits the decoder."}),
                **{
                    side: inputs.int_widget(
                        defaults.MARGIN, 0, defaults.MARGIN_MAX, f"Pixels to add at the {side}, in the decoder's scale."
                    )
                    for side in sides
                },
                **filling_inputs(),
            },
            "optional": {"text": text_input(), "negative": negative_input()},
        }

    VALIDATE_INPUTS = inputs.checking(check_margin_widgets, guidance_scale=sampling.GUIDANCE.check)

    def run(
        self,
        decoder: PartValue[Decoder],
        embedding: EmbeddingValue,
        image: Tensor,
        left: int = defaults.MARGIN,
        top: int = defaults.MARGIN,
        right: int = defaults.MARGIN,
        bottom: int = defaults.MARGIN,
        seed: int = defaults.SEED,
        steps: int = defaults.AUTO_STEPS,
        guidance_scale: float = defaults.AUTO_GUIDANCE,
        resamples: int = defaults.RESAMPLES,
        text: TextValue | None = None,
        negative: EmbeddingValue | None = None,
    ) -> dict[str, Any]:
        """Add the margins to each image `[B, H, W, C]`, under its embedding or the one for all; all by seed + i."""
        margins = check_margins(left=left, top=top, right=right, bottom=bottom)
        large = to_rgb(image)
        small, _ = fit_decoder(decoder.part, large, None)
        padded, holes = pad(small, margins)
        check_canvas(padded, decoder.part)
        scale = min(large.shape[1:3]) / min(small.shape[1:3])
        known, mask = pad(large, {name: round(margin * scale) for name, margin in margins.items()})
        chosen = choose(decoder, steps, guidance_scale)
        filled = fill(decoder, embedding, padded, holes, text, seed, chosen, resamples, "Outpaint", negative)
        place = host.intermediate_device()
        known, mask = known.to(place), mask.to(place)
        whole = editing.in_own_size(filled, known, mask)
        said = [chosen.text, *unread(decoder.part, chosen, text, negative)]
        return host.with_text((whole, known, mask, filled), "\n".join(said))


def choose(decoder: PartValue[Decoder], steps: int, guidance_scale: float) -> Chosen:
    """Return what both nodes sample with; auto takes the nodes' own steps and the model's guidance.

    A decoder that was trained for inpainting takes its own steps too.
    """
    own = [sampling.models_own(decoder.part)]
    if decoder.part.reads_beside != "masked":
        own.insert(0, sampling.nodes_own(steps=defaults.INPAINT_STEPS))
    return sampling.choose({"steps": steps, "guidance_scale": guidance_scale}, *own)


def fill(
    decoder: PartValue[Decoder],
    embedding: EmbeddingValue,
    images: Tensor,
    holes: Tensor,
    text: TextValue | None,
    seed: int,
    chosen: Chosen,
    resamples: int,
    title: str,
    negative: EmbeddingValue | None = None,
) -> Tensor:
    """Draw the `holes` `[N, H, W]` of `images` `[N, H, W, 3]`; batches are of one size or 1."""
    sockets.require_family(embedding, "embedding", decoder.family, "decoder")
    check_negative(decoder.part, negative)
    settings = {
        **chosen.settings,
        "resamples": inputs.check_int("resamples", resamples, 1, defaults.RESAMPLES_MAX),
    }
    sizes = {"image": len(images), "mask": len(holes), "embedding": len(embedding.embeds)}
    count = common_count(**sizes, **({} if negative is None else {"negative": len(negative.embeds)}))
    images, holes, embeds = (expand_batch(batch, count) for batch in (images, holes, embedding.embeds))
    away = None if negative is None else expand_batch(negative.embeds, count)
    seeds = sample_seeds(inputs.check_seed(seed), count)
    condition = text_rows(text, decoder, count)

    def draw(rows: slice, on_step: host.OnStep) -> Tensor:
        here = (batch[rows].to(host.device()) for batch in (images, holes, embeds))
        said = rows_of(condition, rows)
        more = {**settings, "negative_embeds": None if away is None else away[rows]}
        return editing.inpaint_decoder(decoder.part, *here, text=said, seeds=seeds[rows], on_step=on_step, **more)

    squares = images[0, :, :, 0].numel() / decoder.part.image_size**2
    at_once = max(1, int(defaults.IMAGES_AT_ONCE / squares))
    with host.loaded(decoder):
        once = decoder.part.reads_beside == "masked"
        total = chosen.steps if once else (chosen.steps - 1) * resamples + 1
        return host.run_in_chunks(draw, count, at_once, total, title, decoder.part.codec.preview)


def pad(images: Tensor, margins: dict[str, int]) -> tuple[Tensor, Tensor]:
    """Add grey margins to `images` `[B, H, W, 3]`; return them with the mask `[1, H', W']` of the margins."""
    around = (margins["left"], margins["right"], margins["top"], margins["bottom"])
    canvas = F.pad(images.movedim(-1, 1), around, value=0.5).movedim(1, -1)
    mask = F.pad(torch.zeros_like(images[:1, :, :, 0]), around, value=1.0)
    return canvas, mask


def check_margins(**margins: Any) -> dict[str, int]:
    """Return the margins by their names.

    Raises:
        InputError: one is out of range, or all are 0.
    """
    found = {name: inputs.check_int(name, value, 0, defaults.MARGIN_MAX) for name, value in margins.items()}
    if not any(found.values()):
        raise InputError("All margins are 0, so there is nothing to draw: set 'left', 'top', 'right' or 'bottom'.")
    return found


def fit_decoder(decoder: Decoder, images: Tensor, holes: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return `images` `[B, H, W, 3]` and `holes` `[N, H, W]` at the size to draw them at.

    A decoder that draws any size takes the images' own, or scales them down to the longest side that it draws; another
    takes them with their shorter edge as long as its square.

    Raises:
        InputError: a side is too short to be drawn.
    """
    if not decoder.any_size:
        return editing.fit_image(images, holes, decoder.image_size)
    height, width = images.shape[1:3]
    share = min(1.0, defaults.SIZE_MAX / max(height, width))
    size = round(height * share), round(width * share)
    if share == 1:
        check_drawable(*size)
    elif min(size) < defaults.SIZE_MIN:
        raise InputError(
            f"The image is {width} × {height} pixels, of which {size[1]} × {size[0]} are drawn, as no side may be "
            f"longer than {defaults.SIZE_MAX:,}, nor shorter than {defaults.SIZE_MIN}: cut a part of it out first."
        )
    return editing.resize_image(images, size), holes if holes is None or share == 1 else editing.resize_mask(
        holes, size
    )


def check_canvas(images: Tensor, decoder: Decoder) -> None:
    """Refuse a canvas that is too large, or would take too many windows to draw.

    Raises:
        InputError: a side is longer than what is drawn, or it has more pixels than `CANVAS_SIDES_MAX` squares of the
            decoder's size.
    """
    height, width = images.shape[1:3]
    if decoder.any_size:
        if max(height, width) > defaults.SIZE_MAX:
            raise InputError(
                f"With its margins the image is {width} × {height} pixels in the decoder's scale, which draws sides of "
                f"up to {defaults.SIZE_MAX:,}: take smaller margins, or scale the image down first."
            )
        return
    side = decoder.image_size
    if height * width > defaults.CANVAS_SIDES_MAX * side**2:
        raise InputError(
            f"The canvas is {width} × {height} pixels in the decoder's scale; {defaults.CANVAS_SIDES_MAX} squares of "
            f"{side} × {side} are the most that can be drawn. Take smaller margins, or a less narrow image."
        )


def unread(decoder: Decoder, chosen: Chosen, text: TextValue | None, negative: EmbeddingValue | None) -> list[str]:
    """Return a sentence for each input that has no effect in this run."""
    said = canvas.unread(decoder, chosen.settings["guidance_scale"], text is not None, negative is not None)
    return [*said, MADE_ONCE] if decoder.reads_beside == "masked" else said
