"""The node that adds LoRAs to prior and decoder."""

from functools import partial
from typing import Any

from ..unclip_core.lora.files import read_lora
from ..unclip_core.models import Decoder, Prior
from . import files, host, inputs, sockets
from .inputs import InputError, Number
from .sockets import LateValue, PartValue

NONE = "(none)"
"""The choice that changes nothing."""

STRENGTHS = {stage: Number(f"strength_{stage}", -10.0, 10.0, 0.01) for stage in ("prior", "decoder")}


class UnclipApplyLora:
    """Node: adds a LoRA to a prior or a decoder."""

    ID = "UnclipApplyLora"
    DISPLAY_NAME = "Apply LoRA (unCLIP)"
    CATEGORY = "unCLIP/model"
    DESCRIPTION = (
        "Adds a LoRA that was trained for an unCLIP model to its prior or its decoder; the file says for which of the "
        "two. Several in a row add up."
    )
    SEARCH_ALIASES = ["lora", "load lora", "lora loader", "adapter", "peft", "fine-tune"]
    RETURN_TYPES = (sockets.PRIOR, sockets.DECODER)
    RETURN_NAMES = ("prior", "decoder")
    OUTPUT_TOOLTIPS = (
        "The prior, with a LoRA for priors added to it: for Prior Sample.",
        "The decoder, with a LoRA for decoders added to it: for Decoder Sample.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order; the list is read anew at every refresh."""
        name = f"A file in models/loras, trained for an unCLIP model. {NONE} changes nothing."
        strength = "How strongly a LoRA for {0}s changes the {0}: 1 as trained, 0 not at all, below 0 the other way."
        return {
            "required": {
                "lora_name": ([NONE, *host.lora_names()], {"default": NONE, "tooltip": name}),
                **{number.name: number.widget(1.0, strength.format(stage)) for stage, number in STRENGTHS.items()},
            },
            "optional": {
                "prior": (sockets.PRIOR, {"tooltip": "The prior of the model that the LoRA was trained for."}),
                "decoder": (sockets.DECODER, {"tooltip": "The decoder of the model that the LoRA was trained for."}),
            },
        }

    VALIDATE_INPUTS = inputs.checking(**{number.name: number.check for number in STRENGTHS.values()})

    @classmethod
    def IS_CHANGED(
        cls,
        lora_name: str = NONE,
        strength_prior: float = 1.0,
        strength_decoder: float = 1.0,
        prior: Any = None,
        decoder: Any = None,
    ) -> str:
        """Return another value once the file has another size or time: ComfyUI then runs the node again."""
        if lora_name in (None, NONE):
            return ""
        return files.size_and_time(host.lora_path(lora_name))

    def run(
        self,
        lora_name: str = NONE,
        strength_prior: float = 1.0,
        strength_decoder: float = 1.0,
        prior: PartValue[Prior] | None = None,
        decoder: PartValue[Decoder] | None = None,
    ) -> tuple[Any, Any]:
        """Add the LoRA `lora_name` to the part that it is for, and hand both on.

        Raises:
            InputError: there is no such file, no part is linked, or not the one that the LoRA is for.
            CheckpointError: the file is damaged, no LoRA, or does not fit the part.
            FamilyError: prior and decoder are of two families.
        """
        strengths = {
            "prior": STRENGTHS["prior"].check(strength_prior),
            "decoder": STRENGTHS["decoder"].check(strength_decoder),
        }
        parts = {name: value for name, value in (("prior", prior), ("decoder", decoder)) if value is not None}
        if not parts:
            raise InputError("Nothing is linked to 'prior' or 'decoder': there is nothing to add a LoRA to.")
        if len(parts) == 2:
            sockets.require_family(prior, "prior", decoder.family, "decoder")
        if lora_name != NONE:
            parts |= with_lora(parts, lora_name, strengths)
        family = next(iter(parts.values())).family
        return tuple(parts.get(name) or LateValue(family, partial(refuse_unlinked, name)) for name in STRENGTHS)


def with_lora(parts: dict[str, PartValue], name: str, strengths: dict[str, float]) -> dict[str, PartValue]:
    """Return the part that the LoRA `name` is for, with it added; nothing where its strength is 0."""
    lora = read_lora(host.lora_path(name))
    if lora.stage not in parts:
        raise InputError(f"'{name}' is a LoRA for the {lora.stage}, but nothing is linked to '{lora.stage}'.")
    if strengths[lora.stage] == 0:
        return {}
    return {lora.stage: host.adapted(parts[lora.stage], lora, strengths[lora.stage])}


def refuse_unlinked(name: str) -> PartValue:
    """Raise InputError: an output is used whose input is not linked."""
    raise InputError(f"This {name} comes from Apply LoRA, where nothing is linked to '{name}': link one there.")
