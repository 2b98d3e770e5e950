"""The four parts of an unCLIP model, as the pipelines take them, and where they come from."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .clip import ClipAdapter, TextCondition
from .denoiser import ModelDenoiser, clamp_x0
from .nets.decoder import DecoderNet
from .nets.prior import PriorTransformer
from .nets.upsampler import UpsamplerNet
from .samplers import SAMPLERS
from .schedules import SCHEDULES, Steps, alpha_bar, diffusers_steps, make_steps
from .towers import TowerClip

BUNDLED = Path(__file__).parent / "tiny"


@dataclass(frozen=True)
class DiffusionSpec:
    """The forward process that a net was trained on, and how its output is read.

    Attributes:
        schedule: name in `SCHEDULES` ("cosine", "linear", "scaled_linear").
        train_steps: number of discrete steps `T`.
        prediction: "sample" (x0), "epsilon" or "v_prediction".
        variance: "fixed_small", "fixed_small_log", "fixed_large" or "learned_range".
        clip_range: x0 is clamped to ± this after guidance; None leaves it.
        spacing: how sampling timesteps are chosen, a name in `SPACINGS`.
        compatible: with diffusers' float32 tables in place of exact ones, to repeat its pictures.
        solver_spacing: the spacing for samplers of order 2, which extrapolate too far where a plan visits t = 0;
            None takes `spacing`.
    """

    schedule: str = "cosine"
    train_steps: int = 1000
    prediction: str = "sample"
    variance: str = "fixed_small"
    clip_range: float | None = None
    spacing: str = "trailing"
    compatible: bool = False
    solver_spacing: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DiffusionSpec":
        """From JSON; unknown keys are refused.

        Raises:
            ValueError: a key is not known.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"Unknown diffusion settings {unknown}; known are {sorted(known)}.")
        return cls(**data)

    @property
    def table(self) -> Tensor:
        """alpha-bar by training step, float64 `[T]`."""
        return alpha_bar(self._betas, torch.float32 if self.compatible else torch.float64)

    @property
    def _betas(self) -> Tensor:
        return SCHEDULES[self.schedule](self.train_steps)

    def steps(self, count: int, sampler: str | None = None) -> Steps:
        """The plan of a run of `count` steps, for a sampler by its name."""
        if self.solver_spacing and sampler in SAMPLERS and SAMPLERS[sampler].order > 1:
            return make_steps(count, self.table, self.solver_spacing)
        if self.compatible:
            return diffusers_steps(count, self._betas, self.spacing)
        return make_steps(count, self.table, self.spacing)

    def denoiser(self, model: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> ModelDenoiser:
        """Read a raw model that computes in `dtype` under this process."""
        clip = None if self.clip_range is None else clamp_x0(self.clip_range)
        return ModelDenoiser(model, self.table, self.prediction, self.variance, clip, dtype)


@dataclass(frozen=True)
class Clip:
    """The CLIP of a family."""

    family: str
    adapter: ClipAdapter | TowerClip

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.adapter.model


@dataclass(frozen=True)
class Prior:
    """Text embedding to image embedding (Ramesh et al. 2022, section 2.2).

    Attributes:
        family: whose embeddings these are.
        net: the transformer, with the statistics of the embeddings.
        diffusion: the process.
        unit_norm: whether the family's image embeddings have length 1.
    """

    family: str
    net: PriorTransformer
    diffusion: DiffusionSpec
    unit_norm: bool

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net


@dataclass(frozen=True)
class Decoder:
    """Image embedding to a small picture (Ramesh et al. 2022, section 2.1).

    Attributes:
        family: whose embeddings it reads.
        net: the conditioner and the UNet.
        diffusion: the process.
        image_size: side of its pictures, in px.
        blank_text: what CLIP says of the empty prompt, for a net that cannot do without a text and gets none.
    """

    family: str
    net: DecoderNet
    diffusion: DiffusionSpec
    image_size: int
    blank_text: Callable[[], TextCondition] | None = None

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net


@dataclass(frozen=True)
class Upsampler:
    """A small picture to one `scale` times as large.

    Attributes:
        family: the family whose decoder it goes with.
        net: the UNet of all steps, or of all but the last.
        diffusion: the process.
        scale: how many times as wide and high.
        last: the UNet of the last step, where that is another (Karlo tuned it for fine detail).
        clamp: whether the enlarged picture is kept within -1..1; Karlo lets it overshoot.
        sampler: the name of the sampler that it was made for.
        second: the upsampler of what this one has made, where the model has one (Ramesh et al. 2022, section 2.1).
        from_size: side, in px, of the small pictures that a second upsampler is for.
    """

    family: str
    net: UpsamplerNet
    diffusion: DiffusionSpec
    scale: int
    last: UpsamplerNet | None = None
    clamp: bool = True
    sampler: str = "ddim"
    second: "Upsampler | None" = None
    from_size: int = 1

    @cached_property
    def module(self) -> nn.Module:
        """What holds the weights."""
        nets = [self.net, *([] if self.last is None else [self.last]),
                *([] if self.second is None else [self.second.module])]
        return nets[0] if len(nets) == 1 else nn.ModuleList(nets)

    def fitting(self, height: int, width: int) -> "Upsampler":
        """The one for small pictures of that size: the second where both sides are as long as those it is for."""
        takes_second = self.second is not None and min(height, width) >= self.second.from_size
        return self.second if takes_second else self


class PartReader(Protocol):
    """A model folder of some format: what reads its parts."""

    family: str
    small: bool
    """Whether it is quick to read all of it at once."""

    def check(self) -> None:
        """Compare keys and shapes of all parts that are there with their configuration, without reading weights."""
        ...

    def clip(self) -> Clip:
        """Read the text and picture encoders."""
        ...

    def prior(self) -> Prior:
        """Read the prior."""
        ...

    def decoder(self) -> Decoder:
        """Read the decoder."""
        ...

    def upsampler(self) -> Upsampler:
        """Read the upsampler."""
        ...


@dataclass(frozen=True, eq=False)
class UnclipModel:
    """A model folder; each part is read when it is first asked for."""

    name: str
    folder: Path
    reader: PartReader

    @property
    def family(self) -> str:
        """The family that all parts belong to."""
        return self.reader.family

    @cached_property
    def clip(self) -> Clip:
        """Text and picture encoders."""
        return self.reader.clip()

    @cached_property
    def prior(self) -> Prior:
        """The prior."""
        return self.reader.prior()

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder."""
        return self.reader.decoder()

    @cached_property
    def upsampler(self) -> Upsampler:
        """The upsampler."""
        return self.reader.upsampler()


def load_model(
    path: str | Path | None = None, dtype: torch.dtype = torch.float32, conventions: str = "native"
) -> UnclipModel:
    """The model in folder `path`, or the bundled one; nothing but its index is read yet.

    Args:
        path: a folder of the project's own format, a diffusers folder of an unCLIP pipeline, or a folder with
            kakaobrain's own Karlo files.
        dtype: what the weights of prior, decoder and upsampler are cast to; CLIP stays float32.
        conventions: "native" or "diffusers", where the two differ over Karlo: tables, timesteps, clipping, tokens
            and preparation of pictures.

    Raises:
        CheckpointError: the folder holds no model that can be read.
    """
    from .checkpoints.detect import reader_of

    folder = BUNDLED if path is None else Path(path)
    return UnclipModel(name=folder.name, folder=folder, reader=reader_of(folder, dtype, conventions))
