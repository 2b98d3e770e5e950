"""What a stage is given, as its net takes it: counts, places, texts, noise of candidates."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..clip.adapter import TextCondition
from ..diffusion.noise import NoiseSource
from ..weights.computing import dtype_for

Interval = tuple[float, float]
WHOLE_RUN: Interval = (0.0, 1.0)


def check_count(what: str, count: int, wanted: int, of: str) -> None:
    """Raise ValueError unless there are as many as are wanted, and at least one."""
    if count != wanted or wanted == 0:
        raise ValueError(f"There are {count} {what} for {wanted} {of}: there must be one each, and at least one.")


def check_finite(rows: Tensor, name: str) -> None:
    """Raise ValueError if a row of `[B, …]` holds NaN or infinity; it waits for the device, so ask once a run."""
    finite = torch.isfinite(rows)
    if not bool(finite.all()):
        row = int((~finite).reshape(len(rows), -1).any(dim=1).nonzero()[0])
        raise ValueError(
            f"Row {row + 1} of the {len(rows)} {name} holds NaN or infinity: leave it out, or compute it again in fp32 "
            "(half precision may overflow)."
        )


def check_width(embeds: Tensor, width: int, name: str = "image embeddings") -> None:
    """Raise ValueError unless `embeds` is `[B, width]`; it does not look at the numbers."""
    if embeds.ndim != 2:
        raise ValueError(f"The {name} have shape {list(embeds.shape)}: give a batch [B, {width}], a row an image.")
    if embeds.shape[1] != width:
        raise ValueError(
            f"The {name} are {embeds.shape[1]} numbers wide, and {width} are needed: take them from a CLIP or prior of "
            "the same family."
        )


def placed(net: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device of a net's first parameter, which all of it shares, and what it computes in."""
    parameter = next(net.parameters())
    return parameter.device, dtype_for(parameter)


def text_arguments(text: TextCondition) -> dict[str, Tensor]:
    """A text condition under the names by which the nets take it."""
    return {"text_embeds": text.embeds, "text_states": text.states, "text_mask": text.mask}


def null_arguments(text: TextCondition) -> dict[str, Tensor]:
    """The empty prompt, for the other half of guidance; ValueError if the text condition carries none."""
    if text.null is None:
        raise ValueError(
            "Guidance needs CLIP's word for the empty prompt, and this text condition carries none: "
            "use one made by encode_text, or set guidance_scale to 1."
        )
    return text_arguments(text.null)


def text_rows(text: TextCondition | None, count: int, device: torch.device) -> dict[str, Tensor]:
    """One text a row of `count`, or the one for all of them; nothing if there is none."""
    if text is None:
        return {}
    if len(text.embeds) not in (1, count):
        raise ValueError(f"{len(text.embeds)} texts do not go with {count} image embeddings: give one, or one each.")
    rows = text.select([0] * count) if len(text.embeds) == 1 else text
    return text_arguments(rows.to(device))


def candidate_stream(stage: str, number: int) -> str:
    """The name of the stream of noise that a stage's candidate of that number draws from."""
    return stage if number == 0 else f"{stage}/{number}"


def candidates_noise(seeds: Sequence[int], candidates: int, stage: str) -> NoiseSource:
    """Noise of `candidates` samples a seed: candidate 0 has the stage's own stream, the others one each.

    So candidate `k` depends on its seed and on `k` alone, and seeds in a row share nothing.
    """
    streams = [candidate_stream(stage, k) for k in range(candidates)]
    return NoiseSource([seed for seed in seeds for _ in streams], streams * len(seeds))
