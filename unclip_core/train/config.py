"""The settings of a training, from a TOML or JSON file: every key known, of the right type and in range."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..models import StageSettings
from ..parsing import MalformedInput, read_json, read_toml
from .loss_config import LOSSES, ClipLoss, DiffusionLoss
from .settings import build_settings, require

STAGES = ("clip", "prior", "decoder", "upsampler")
CAPTIONS = "captions"
"""What the vocabulary that is learned from the data's captions is called."""
ENDLESS = 2**40
"""More steps than any time holds."""


@dataclass(frozen=True)
class Training:
    """How long, how fast and how precisely to train (table `[training]`).

    Attributes:
        steps: optimizer steps; 0 where `minutes` alone ends the training.
        minutes: of training, over all its runs, after which it ends; 0 for no limit. The learning rate's cosine ends
            with steps or minutes, whichever comes first. Embedding the data before it is not counted.
        batch: images a step, over all processes and accumulated parts together.
        accumulation: parts that a step's batch is computed in, one after the other.
        stop: step after which training ends, along the learning rate's schedule for `steps`; 0 for its end.
        optimizer: "muon" (Muon for hidden matrices, AdamW for the rest) or "adamw" for all; "auto" takes Muon for a
            new net and AdamW to go on from a base's weights, which AdamW has made.
        muon_max_side: the longest that the shorter side of a matrix may be for Muon, whose cost grows with its cube.
        lr: peak learning rate, of Muon's updates at AdamW's scale too; a cosine leads from it to a hundredth.
        warmup: steps of linear warm-up.
        weight_decay: of matrices; vectors are not decayed.
        beta2: AdamW's decay of squared gradients.
        clip_norm: largest norm of the gradients; 0 for no bound.
        ema: decay of the moving average of the weights per step; the average is what is saved as the model.
        precision: "no" (float32), "bf16" or "fp16" (mixed); bf16 is float32 on a CPU that only emulates it.
        checkpointing: recompute activations in the backward pass, for less memory and a third more time.
        workers: processes that read images, beside each training process; 0 for none.
        on_device: read all samples at the start and keep them on the device (CLIP, prior, decoder): for small images,
            of which a GPU computes more a second than processes can read; a decoder of 64 px takes 30 KiB a sample.
        seed: of everything random.
        log_every: steps between lines of the log, each the mean over those steps.
        save_minutes: time between checkpoints.
        sample_every: steps between sheets of samples (decoder, upsampler) and measures; 0 for none.
        held_out: samples that are kept aside: never trained on, and measured at each sheet and at the end.
        tensorboard: whether to log for TensorBoard too.
        save_dtype: of the model's weights on the disk: "fp32", "fp16" or "bf16".
    """

    steps: int = 0
    minutes: float = 0.0
    batch: int = 16
    accumulation: int = 1
    stop: int = 0
    optimizer: Literal["auto", "muon", "adamw"] = "auto"
    muon_max_side: int = 2048
    lr: float = 1e-4
    warmup: int = 100
    weight_decay: float = 0.01
    beta2: float = 0.999
    clip_norm: float = 1.0
    ema: float = 0.999
    precision: Literal["no", "bf16", "fp16"] = "no"
    checkpointing: bool = False
    workers: int = 0
    on_device: bool = False
    seed: int = 0
    log_every: int = 10
    save_minutes: float = 10.0
    sample_every: int = 0
    held_out: int = 0
    tensorboard: bool = False
    save_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        require("training", vars(self), 1, math.inf, "batch", "accumulation", "log_every")
        require(
            "training",
            vars(self),
            0,
            math.inf,
            "stop",
            "minutes",
            "held_out",
            "muon_max_side",
            "warmup",
            "weight_decay",
            "workers",
            "save_minutes",
            "sample_every",
            "lr",
            "clip_norm",
        )
        require("training", vars(self), 0, 1, "ema", "beta2")
        if not self.minutes or self.steps:
            require("training", vars(self), 1, math.inf, "steps")
        if self.batch % self.accumulation:
            raise ValueError(
                f"training.batch {self.batch} is not a multiple of training.accumulation {self.accumulation}."
            )

    @property
    def last(self) -> int:
        """The step after which training ends, if its time does not end before."""
        steps = self.steps or ENDLESS
        return min(self.stop or steps, steps)


@dataclass(frozen=True)
class LoraSettings:
    """Train a LoRA in place of all weights (table `[lora]`): its `rank`, `alpha` (0: the rank) and `targets`.

    What the targets of a prior and a decoder are, and which are taken where none is named: `train.lora`.
    """

    rank: int = 16
    alpha: float = 0.0
    targets: list = field(default_factory=list)

    def __post_init__(self) -> None:
        require("lora", vars(self), 1, math.inf, "rank")
        require("lora", vars(self), 0, math.inf, "alpha")
        if not all(isinstance(target, str) for target in self.targets):
            raise ValueError(f"lora.targets must be a list of texts, got {self.targets!r}.")


@dataclass(frozen=True)
class Config:
    """A training of one net.

    Attributes:
        start: "base" to go on from the base's own weights, "scratch" for new ones of the shape `net`.
        base: the model that the result is built on: a folder, the name of a bundled model such as "bundled (shapes)",
            or "output" for what the output folder holds already. Its CLIP says what embeddings are, and its other
            parts go into the result.
        image_encoder: of prior or decoder, where the base's CLIP has none, as Karlo's published folder for text: a
            folder with the image encoder that goes with it (karlo-v1-alpha-image-variations).
        prior: of a Kandinsky's decoder whose card names no prior that is there: the folder of its prior, whose CLIP
            says what embeddings are.
        family: the name of the embeddings' family, where CLIP is trained; "" takes the output folder's name.
        training: see Training.
        loss: see the loss of the stage.
        freeze: of a base's CLIP, whose prior, decoder and upsampler then stay with it: "image" keeps the image tower
            and trains the text tower alone (Zhai et al. 2022); "towers" keeps both, and embeds new words alone (as Gal
            et al. 2022 do with one); "" trains all.
        keep_base: share of the base's own weights in the result, 0..1, with start = "base": between both lie weights
            that know what was learned and forgot less of what was known (Wortsman et al. 2022, arXiv 2109.01903).
        vocabulary: of a new CLIP, or with `freeze`: "" for OpenAI's or the base's, "captions" for one that is learned
            from the data's captions (with "towers" beside the base's tokens), or a file with a word or a byte pair a
            line.
        vocabulary_size: tokens of the one that is learned from captions, at most.
        net: the shape of a new net; `preset` fills in what is not given: "tiny", "small" or "karlo", for CLIP "tiny",
            "small" or an architecture of open_clip's ("ViT-B-32").
        diffusion: the process of a new net (fields of DiffusionSpec).
        lora: of prior or decoder, a LoRA on the base's weights in place of a model.
        settings: of prior, decoder or upsampler, what it is to be sampled with by default (table `[settings]`:
            `steps`, `guidance_scale`, `sampler`); None leaves what the base states.
    """

    training: Training
    loss: ClipLoss | DiffusionLoss
    start: Literal["base", "scratch"] = "base"
    base: str = "output"
    image_encoder: str = ""
    family: str = ""
    freeze: Literal["", "image", "towers"] = ""
    vocabulary: str = ""
    vocabulary_size: int = 8192
    net: dict[str, Any] = field(default_factory=dict)
    diffusion: dict[str, Any] = field(default_factory=dict)
    lora: LoraSettings | None = None
    settings: StageSettings | None = None
    prior: str = ""
    keep_base: float = 0.0

    def __post_init__(self) -> None:
        require("the configuration", vars(self), 600, 2**20, "vocabulary_size")
        require("the configuration", vars(self), 0, 1, "keep_base")

    def to_dict(self) -> dict[str, Any]:
        """All settings, those by default too, as JSON holds them."""
        return asdict(self)


def read_config(path: str | Path, stage: str) -> Config:
    """The configuration in a .toml or .json file.

    Raises:
        ValueError: the file cannot be read, a key is unknown or missing, or a value has a wrong type or range.
    """
    path = Path(path)
    try:
        return config_from_dict(_parsed(path), stage)
    except OSError as error:
        raise ValueError(f"The configuration '{path}' cannot be read ({error}).") from error
    except MalformedInput as error:  # which names the file itself
        raise ValueError(f"The configuration {error}") from error
    except ValueError as error:
        raise ValueError(f"The configuration '{path}': {error}") from error


def config_from_dict(data: Mapping[str, Any], stage: str) -> Config:
    """The configuration of a stage from plain tables. Raises ValueError as `read_config`."""
    tables = dict(data)
    if "training" not in tables:
        raise ValueError("there is no table [training] with at least 'steps' or 'minutes'.")
    for name in ("training", "loss", "net", "diffusion", "lora", "settings"):
        if not isinstance(tables.get(name, {}), Mapping):
            raise ValueError(f"{name} must be a table, got {tables[name]!r}.")
    if not {"steps", "minutes"} & set(tables["training"]):
        raise ValueError("the settings ['training.steps'] are missing: name steps, or minutes, or both.")
    tables["training"] = build_settings(Training, tables["training"], "training.")
    tables["loss"] = build_settings(LOSSES[stage], tables.get("loss", {}), "loss.")
    if "lora" in tables:
        tables["lora"] = build_settings(LoraSettings, tables["lora"], "lora.")
    if "settings" in tables:
        tables["settings"] = build_settings(StageSettings, tables["settings"], "settings.")
    config: Config = build_settings(Config, tables, "")
    _check_start(config, stage)
    return replace(config, training=_with_optimizer(config.training, config.start))


def _with_optimizer(training: Training, start: str) -> Training:
    """The settings with "auto" decided, so that what is kept and printed says what is done."""
    if training.optimizer != "auto":
        return training
    return replace(training, optimizer="muon" if start == "scratch" else "adamw")


def _check_start(config: Config, stage: str) -> None:
    """Refuse tables that do not go with the start or the stage. Raises ValueError."""
    if config.freeze and (stage != "clip" or config.start != "base"):
        raise ValueError('freeze goes with a CLIP of a base, start = "base": there is no other tower to keep.')
    if config.keep_base and (config.start != "base" or config.lora):
        raise ValueError('keep_base goes with start = "base", and not with [lora], which leaves the base as it is.')
    if config.freeze == "towers" and (config.vocabulary != CAPTIONS or config.training.weight_decay):
        raise ValueError(
            'freeze = "towers" embeds new words alone: it needs vocabulary = "captions", and training.weight_decay = 0 '
            "so that the known ones stay."
        )
    if config.vocabulary and (stage != "clip" or (config.start != "scratch" and not config.freeze)):
        raise ValueError(
            'vocabulary goes with a new CLIP, start = "scratch", or with `freeze`; any other has its own already.'
        )
    if config.training.on_device and stage == "upsampler":
        raise ValueError("training.on_device goes with CLIP, prior and decoder: upsamplers read crops of large images.")
    if config.settings and (stage == "clip" or config.lora):
        raise ValueError("[settings] goes with a prior, a decoder or an upsampler, and not with [lora].")
    if config.lora and (config.start != "base" or stage not in ("prior", "decoder")):
        raise ValueError('[lora] goes with start = "base", and with the prior or the decoder.')
    if config.start == "base" and (config.net or config.diffusion):
        raise ValueError(
            '[net] and [diffusion] describe a new net: with them write start = "scratch", or leave them '
            "out to go on from the base's own."
        )
    if config.start == "scratch" and not config.net:
        raise ValueError('start = "scratch" needs the shape of the new net in [net]; preset = "tiny" is one.')


def _parsed(path: Path) -> dict[str, Any]:
    if path.suffix == ".json":
        data = read_json(path)
        if not isinstance(data, dict):
            raise ValueError("it holds no JSON object.")
        return data
    if path.suffix != ".toml":
        raise ValueError("its name must end in .toml or .json.")
    try:
        return read_toml(path)
    except ModuleNotFoundError as error:
        raise ValueError(
            "Python 3.10 reads TOML with the package 'tomli' only: pip install \"tomli>=2\", or write the "
            "configuration as .json."
        ) from error
