"""The configurations of a decoder folder as diffusers writes them, to our params.

Old files lack keys: those take diffusers' own defaults. A setting that our networks cannot follow is refused by name.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...diffusion.spec import DiffusionSpec
from ...nets.decoder import DecoderParams
from ...nets.image_conditioner import HINT_LATENT_CHANNELS, ImageConditionerParams
from ...nets.movq_params import MoVQParams
from ...weights.config_checks import require
from ..karlo.config import decoder_config, decoder_unet_params

_ENCODER_BLOCKS = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
_DECODER_BLOCKS = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "learned_range")
_PREDICTIONS = ("epsilon", "sample", "v_prediction")
_SPACINGS = ("leading", "trailing", "linspace")
Beside = Literal["masked", "hint"] | None
MAX_TRAIN_STEPS = 100_000
SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim"}
"""Our sampler of each scheduler that a folder may name."""


@dataclass(frozen=True)
class MoVQConfig:
    """A VQModel's configuration."""

    block_out_channels: list[int]
    down_block_types: list[str]
    up_block_types: list[str]
    layers_per_block: int = 1
    norm_num_groups: int = 32
    latent_channels: int = 3
    vq_embed_dim: int | None = None
    num_vq_embeddings: int = 256
    in_channels: int = 3
    out_channels: int = 3
    norm_type: str = "group"
    act_fn: str = "silu"
    mid_block_add_attention: bool = True

    def params(self) -> MoVQParams:
        """Our params of the net. Raises ValueError for settings that it does not have."""
        fixed = {"norm_type": "spatial", "act_fn": "silu", "mid_block_add_attention": True}
        require(vars(self), {**fixed, "in_channels": 3, "out_channels": 3})
        require(vars(self), {"vq_embed_dim": self.latent_channels}, or_none=True)
        attention = _attention(self.down_block_types, _ENCODER_BLOCKS)
        if _attention(self.up_block_types, _DECODER_BLOCKS)[::-1] != attention:
            raise ValueError(f"the way up {self.up_block_types} does not mirror the way down {self.down_block_types}")
        return MoVQParams(
            channels=tuple(self.block_out_channels),
            attention=attention,
            blocks=self.layers_per_block,
            groups=self.norm_num_groups,
            latent_channels=self.latent_channels,
            codes=self.num_vq_embeddings,
        )


def movq_config(params: MoVQParams) -> dict[str, Any]:
    """Write the configuration that `MoVQConfig` reads."""
    down, up = (({on: name for name, on in names.items()}) for names in (_ENCODER_BLOCKS, _DECODER_BLOCKS))
    config = MoVQConfig(
        block_out_channels=list(params.channels),
        down_block_types=[down[on] for on in params.attention],
        up_block_types=[up[on] for on in reversed(params.attention)],
        layers_per_block=params.blocks,
        norm_num_groups=params.groups,
        latent_channels=params.latent_channels,
        vq_embed_dim=params.latent_channels,
        num_vq_embeddings=params.codes,
        norm_type="spatial",
    )
    return {"_class_name": "VQModel", **asdict(config)}


def decoder_params(unet: dict[str, Any]) -> DecoderParams:
    """Read a UNet2DConditionModel's configuration. Raises ValueError for settings that our nets do not have."""
    require(unet, {"encoder_hid_dim_type": "image_proj", "class_embed_type": None})
    kind = unet.get("addition_embed_type")
    if kind not in ("image", "image_hint"):
        raise ValueError(f"'addition_embed_type' is {kind!r}; supported are 'image' and 'image_hint'")
    width, size = _whole(unet, "encoder_hid_dim"), _whole(unet, "sample_size")
    elsewhere = {"addition_embed_type": None, "encoder_hid_dim": None, "encoder_hid_dim_type": None}
    params = decoder_unet_params({**unet, **elsewhere, "class_embed_type": "identity"})
    if params.context_dim is None:
        raise ValueError("'cross_attention_dim' is not given")
    conditioner = ImageConditionerParams(
        embed_dim=width,
        time_embed_dim=params.time_embed_dim,
        context_dim=params.context_dim,
        hint=kind == "image_hint",
    )
    return DecoderParams(conditioner, params, image_size=size)


def unet_config(params: DecoderParams) -> dict[str, Any]:
    """Write the configuration that `decoder_params` reads."""
    conditioner: Any = params.conditioner
    return decoder_config(params) | {
        "encoder_hid_dim": conditioner.embed_dim,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image_hint" if conditioner.hint else "image",
        "class_embed_type": None,
    }


def reads_beside(params: DecoderParams, channels: int) -> Beside:
    """What a UNet reads beside latents of that many channels: "masked", "hint", or nothing at all.

    Raises:
        ValueError: it takes a number of channels that means none of these.
    """
    conditioner: Any = params.conditioner
    beside: Beside = "hint" if conditioner.hint else "masked" if params.unet.in_channels > channels else None
    wanted = {None: channels, "masked": 2 * channels + 1, "hint": channels + HINT_LATENT_CHANNELS}[beside]
    if params.unet.in_channels != wanted or params.unet.out_channels not in (channels, 2 * channels):
        raise ValueError(
            f"'in_channels' is {params.unet.in_channels} and 'out_channels' {params.unet.out_channels}: a decoder of "
            f"{channels} latent channels has {wanted} and {channels} or {2 * channels}"
        )
    return beside


@dataclass(frozen=True)
class SchedulerConfig:
    """The configuration of a DDPMScheduler or a DDIMScheduler, which share most keys and all defaults."""

    _class_name: str = "DDPMScheduler"
    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: list[float] | None = None
    variance_type: str = "fixed_small"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    prediction_type: str = "epsilon"
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    rescale_betas_zero_snr: bool = False

    @property
    def sampler(self) -> str:
        """Our sampler in the scheduler's place. Raises ValueError for a scheduler that ours is none for."""
        _one_of("_class_name", self._class_name, SAMPLERS)
        return SAMPLERS[self._class_name]

    def diffusion(self, predicts_variance: bool) -> DiffusionSpec:
        """The process, for a net that predicts a variance too or does not. Raises ValueError as `require`."""
        self._check()
        schedule = _SCHEDULES[self.beta_schedule]
        spec = DiffusionSpec(
            schedule=schedule,
            train_steps=self.num_train_timesteps,
            prediction=self.prediction_type,  # type: ignore[arg-type]  # one of them: checked
            variance=self.variance_type,  # type: ignore[arg-type]  # likewise
            clip_range=self.clip_sample_range if self.clip_sample and not self.thresholding else None,
            spacing=self.timestep_spacing,
            solver_spacing="trailing",
            beta_range=None if schedule == "cosine" else (self.beta_start, self.beta_end),
            offset=self._offset,
            ends_noisy=self._ends_noisy,
            threshold=(self.dynamic_thresholding_ratio, self.sample_max_value) if self.thresholding else None,
            spare_variance=predicts_variance and self.variance_type != "learned_range",
        )
        _ = spec.table, spec.x0_clip  # numbers that make none are found here
        return spec

    @property
    def _offset(self) -> int:
        """What is added to the timesteps: the other spacings read no 'steps_offset'."""
        return self.steps_offset if self.timestep_spacing == "leading" else 0

    @property
    def _ends_noisy(self) -> bool:
        return self.sampler == "ddim" and not self.set_alpha_to_one

    def _check(self) -> None:
        require(vars(self), {"trained_betas": None, "rescale_betas_zero_snr": False})
        if not 1 <= self.num_train_timesteps <= MAX_TRAIN_STEPS:
            raise ValueError(f"'num_train_timesteps' is {self.num_train_timesteps}; it must be 1 to {MAX_TRAIN_STEPS}")
        _one_of("beta_schedule", self.beta_schedule, _SCHEDULES)
        _one_of("variance_type", self.variance_type, _VARIANCES)
        _one_of("prediction_type", self.prediction_type, _PREDICTIONS)
        _one_of("timestep_spacing", self.timestep_spacing, _SPACINGS)
        # "trailing" keeps clear of t = 0 unless the steps are very many, which the process itself refuses.
        if self._ends_noisy and self.timestep_spacing != "trailing" and self._offset == 0:
            raise ValueError(
                f"'set_alpha_to_one' is False, 'timestep_spacing' {self.timestep_spacing!r} and 'steps_offset' "
                f"{self.steps_offset}: the last step would change nothing"
            )


def scheduler_config(spec: DiffusionSpec, sampler: str) -> dict[str, Any]:
    """Write the configuration that `SchedulerConfig` reads of that process, for ddim a DDIMScheduler's."""
    own = SchedulerConfig()
    start, end = spec.beta_range or (own.beta_start, own.beta_end)
    ratio, most = spec.threshold or (own.dynamic_thresholding_ratio, own.sample_max_value)
    config = SchedulerConfig(
        _class_name=next((name for name, ours in SAMPLERS.items() if ours == sampler), "DDPMScheduler"),
        num_train_timesteps=spec.train_steps,
        beta_start=start,
        beta_end=end,
        beta_schedule={ours: name for name, ours in _SCHEDULES.items()}[spec.schedule],
        variance_type=spec.variance,
        clip_sample=spec.clip_range is not None,
        clip_sample_range=spec.clip_range or 1.0,
        prediction_type=spec.prediction,
        thresholding=spec.threshold is not None,
        dynamic_thresholding_ratio=ratio,
        sample_max_value=most,
        timestep_spacing=spec.spacing,
        steps_offset=spec.offset,
        set_alpha_to_one=not spec.ends_noisy,
    )
    ddpm = config._class_name == "DDPMScheduler"
    skipped = "set_alpha_to_one" if ddpm else "variance_type"
    return {key: value for key, value in asdict(config).items() if key != skipped}


def published_scheduler(clips: bool) -> SchedulerConfig:
    """What the published folders say where the file is not there: Kandinsky 2.2's own schedule."""
    return SchedulerConfig(beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=clips)


def _attention(blocks: list[str], known: dict[str, bool]) -> tuple[bool, ...]:
    for name in blocks:
        _one_of("block type", name, known)
    return tuple(known[name] for name in blocks)


def _whole(config: dict[str, Any], key: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**20:
        raise ValueError(f"'{key}' is {value!r}; it must be a whole number from 1 to {2**20}")
    return value


def _one_of(key: str, value: str, known: Any) -> None:
    if value not in known:
        raise ValueError(f"'{key}' is {value!r}; supported are {', '.join(known)}")
