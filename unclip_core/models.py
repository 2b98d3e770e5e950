"""The four parts of an unCLIP model, as the pipelines take them, and where they come from."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .clip import ClipAdapter
from .denoiser import ModelDenoiser, clamp_x0
from .nets.decoder import DecoderNet
from .nets.prior import PriorTransformer
from .nets.upsampler import UpsamplerNet
from .schedules import SCHEDULES, Steps, alpha_bar, make_steps

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
        spacing: how sampling timesteps are chosen ("linspace", "leading", "trailing", "karlo").
    """

    schedule: str = "cosine"
    train_steps: int = 1000
    prediction: str = "sample"
    variance: str = "fixed_small"
    clip_range: float | None = None
    spacing: str = "trailing"

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
        return alpha_bar(SCHEDULES[self.schedule](self.train_steps))

    def steps(self, count: int) -> Steps:
        """The plan of a run of `count` steps."""
        return make_steps(count, self.table, self.spacing)

    def denoiser(self, model: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> ModelDenoiser:
        """Read a raw model that computes in `dtype` under this process."""
        clip = None if self.clip_range is None else clamp_x0(self.clip_range)
        return ModelDenoiser(model, self.table, self.prediction, self.variance, clip, dtype)


@dataclass(frozen=True)
class Clip:
    """The CLIP of a family."""

    family: str
    adapter: ClipAdapter

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
    """Image embedding to a small picture (Ramesh et al. 2022, section 2.1)."""

    family: str
    net: DecoderNet
    diffusion: DiffusionSpec
    image_size: int

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net


@dataclass(frozen=True)
class Upsampler:
    """A small picture to one `scale` times as large."""

    family: str
    net: UpsamplerNet
    diffusion: DiffusionSpec
    scale: int

    @property
    def module(self) -> nn.Module:
        """What holds the weights."""
        return self.net


@dataclass(frozen=True, eq=False)
class UnclipModel:
    """A model folder; each part is read when it is first asked for."""

    name: str
    family: str
    folder: Path
    dtype: torch.dtype = torch.float32

    @cached_property
    def clip(self) -> Clip:
        """Text and picture encoders."""
        from .checkpoints.native import read_clip

        return read_clip(self.folder, self.family)

    @cached_property
    def prior(self) -> Prior:
        """The prior."""
        from .checkpoints.native import read_prior

        return read_prior(self.folder, self.family, self.dtype)

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder."""
        from .checkpoints.native import read_decoder

        return read_decoder(self.folder, self.family, self.dtype)

    @cached_property
    def upsampler(self) -> Upsampler:
        """The upsampler."""
        from .checkpoints.native import read_upsampler

        return read_upsampler(self.folder, self.family, self.dtype)


def load_model(path: str | Path | None = None, dtype: torch.dtype = torch.float32) -> UnclipModel:
    """The model in folder `path`, or the bundled one; nothing but its index is read yet.

    Raises:
        CheckpointError: the folder holds no model that can be read.
    """
    from .checkpoints.native import read_index

    folder = BUNDLED if path is None else Path(path)
    index = read_index(folder)
    return UnclipModel(name=folder.name, family=index["family"], folder=folder, dtype=dtype)
