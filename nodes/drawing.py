"""What the nodes that sample a decoder share: their inputs, and the text condition of each image."""

from ..unclip_core.clip.adapter import TextCondition
from ..unclip_core.models import Decoder
from . import defaults, host, inputs, sampling, sockets
from .inputs import InputError, Number
from .sockets import PartValue, TextValue

ETA = Number("eta", defaults.ETA_MIN, defaults.ETA_MAX, 0.05)


def decoder_input() -> inputs.Widget:
    """Return the input for a decoder."""
    return (sockets.DECODER, {"tooltip": "The decoder of Load unCLIP Model."})


def sampling_inputs(
    steps: str = "Sampling steps. More is slower. 0: auto, the model's own.",
) -> dict[str, inputs.Widget]:
    """Return seed, steps (with this tooltip) and guidance, in this order."""
    return {
        "seed": inputs.seed_widget(),
        "steps": sampling.steps_widget(steps),
        "guidance_scale": sampling.guidance_widget(
            "How strictly to follow the embedding. 1: guidance off; higher: clearer, less varied. "
            "-1: auto, the model's own.",
        ),
    }


def eta_widget() -> inputs.Widget:
    """Return the input for ddim's eta: how much fresh noise each step adds."""
    tooltip = "Fresh noise in each step of ddim: 0 none, 1 as much as ddpm. Other samplers ignore it."
    return ETA.widget(defaults.ETA, tooltip, advanced=True)


def text_input() -> inputs.Widget:
    """Return the input for the prompt."""
    return (sockets.TEXT, {"tooltip": "The prompt, which the decoder can read too."})


def text_rows(
    text: TextValue | None, decoder: PartValue[Decoder], count: int, batch_size: int = 1
) -> TextCondition | None:
    """Select the text condition of each of `count * batch_size` images: one prompt for all, or one for each embedding.

    Raises:
        FamilyError: the text is of another family than the decoder.
        InputError: the numbers of prompts and embeddings do not fit.
    """
    if text is None:
        return None
    sockets.require_family(text, "text", decoder.family, "decoder")
    return text.condition.select(prompt_rows(len(text.prompts), count, batch_size))


def prompt_rows(prompts: int, count: int, batch_size: int) -> list[int]:
    """Return the index of the prompt of each of `count * batch_size` images.

    Raises:
        InputError: there is neither one for all embeddings nor one for each.
    """
    if prompts not in (1, count):
        raise InputError(f"{prompts} prompts do not fit {count} embeddings: give one, or one for each.")
    return [image // batch_size % prompts for image in range(count * batch_size)]


def rows_of(condition: TextCondition | None, rows: slice) -> TextCondition | None:
    """Select the text condition of some of the images, and move it to the device."""
    if condition is None:
        return None
    return condition.select(range(len(condition.embeds))[rows]).to(host.device())
