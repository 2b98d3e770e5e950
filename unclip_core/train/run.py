"""`unclip train clip | prior | decoder | upsampler` and `unclip embed`: from paths to a model folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data.opening import open_images
from ..data.samples import Collection, summary
from ..families.loading import load_model
from ..models import Prior, UnclipModel
from ..output import legible, say
from ..weights.choices import AUTO
from ..weights.devices import choose_device
from ..weights.files import write_whole
from .batch_sampler import check_share
from .batch_sources import BatchSource, SampledBatches
from .config import Config, read_config
from .datasets import ClipDataset, DecoderDataset, PriorDataset, StageDataset, UpsamplerDataset
from .description import description
from .device_batches import DeviceBatches
from .embedding_store import EmbeddingStore
from .embeds import BATCH, Embedder, Workers, embed_collection
from .engine import Engine, Hooks
from .held_out import (
    Chosen,
    clip_find,
    mean_losses,
    measure_clip,
    measure_prior,
    prior_find,
    retrieval_sheets,
    split,
    usable,
)
from .image_tower import ImageTower
from .latents import LatentStore, encode_latents
from .lora import save_lora
from .new_tokens import fit_new_tokens
from .objectives import objective_class
from .perceptual import PerceptualLoss
from .processes import make_accelerator, part
from .results import check_output, output_lock, write_result
from .sample_sheets import decoder_sheets, upsampler_sheets
from .state import RunFiles, clear_leftovers, read_state, settle_config
from .targets import Target, check_base_stays, make_target, open_base, vocabulary_of
from .vocabulary import KEPT, new_vocabulary

TRAINING, EMBEDDINGS, LATENTS = "training", "embeddings", "latents"
INTERRUPTED = 130


def train(stage: str, data: str, config_path: str, output: str, dry_run: bool = False, cpu: bool = False) -> int:
    """Train a stage on own images into the model folder `output`, going on where an earlier run stopped.

    Args:
        stage: "clip", "prior", "decoder" or "upsampler".
        data: a folder of images with captions, a saved Hugging Face dataset, or webdataset shards.
        config_path: a .toml or .json file, see Config.
        output: the model folder; what is needed to go on stands in its subfolder "training".
        dry_run: check everything and print what would be done; nothing is written.
        cpu: train on the CPU though there is a GPU.

    Returns:
        The exit code: 0 when done, 130 when interrupted (the same command then goes on).

    Raises:
        ValueError: configuration, data or model cannot be used.
        OSError: the disk is full; the last checkpoint stands.
        FloatingPointError: the loss or its gradient is not finite; the last checkpoint stands.
    """
    config = read_config(config_path, stage)
    collection = open_images(data)
    folder = Path(output)
    base = open_base(stage, config, folder)
    files = RunFiles(folder / TRAINING / stage)
    kept = files.folder / KEPT
    check_base_stays(config, folder)
    known = vocabulary_of(base) if config.freeze == "towers" else None
    going_on = kept if files.state.is_file() and kept.is_file() else None
    vocabulary = new_vocabulary(config.vocabulary, config.vocabulary_size, collection, going_on, known)
    target = make_target(stage, config, base, folder, vocabulary)
    if config.lora is None:
        check_output(stage, target, base, folder)
    accelerator = make_accelerator(config.training, cpu)
    tell = say if accelerator.is_main_process else _say_nothing
    tell(description(stage, config, collection, target, folder, accelerator))
    run = Run(stage, config, collection, base, target, folder, accelerator)
    run.check()
    # All processes look before the first one writes.
    settle_config(files, config.to_dict(), legible(str(data)), write=False)
    if dry_run:
        tell("Everything fits. Nothing was written: leave out --dry-run to train.")
        return 0
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        clear_leftovers(files.folder)
        with output_lock(folder):  # another training may be writing there
            clear_leftovers(folder)
        settle_config(files, config.to_dict(), legible(str(data)), write=True)
        if vocabulary is not None:
            write_whole(kept, (vocabulary.merges + "\n").encode())
    finished, bad = run.train()
    part(accelerator)
    tell(summary(bad, collection))
    if not finished:
        tell(f"Interrupted; the same command goes on. '{folder}' holds the model as it is now.")
        return INTERRUPTED
    if config.lora is None:
        tell(f"'{folder}' is a model folder: put it into ComfyUI/models/unclip, or name it where one is asked for.")
    else:
        tell(f"'{run.lora_path}' is a LoRA: put it into ComfyUI/models/loras.")
    return 0


def _say_nothing(text: str) -> None:
    """What a process beside the main one says."""


def embed(
    data: str,
    output: str,
    model: str | None = None,
    device: str = AUTO,
    batch: int = BATCH,
    workers: int = 0,
    write: Callable[[Path, Sequence[int]], None] | None = None,
) -> int:
    """Compute CLIP's embeddings of own images and captions into the folder `output`, once.

    Args:
        data: as of `train`.
        output: for the shards.
        model: a model folder; None for the bundled one.
        device: what CLIP runs on.
        batch: samples that CLIP reads at once, 1 or more.
        workers: processes that read images beside this one, 0 or more.
        write: has others compute the shards of these numbers into a folder; None does it here.

    Raises:
        ValueError: data or model cannot be used, or a number is out of range.
        OSError: the disk is full; what is written so far is whole.
    """
    if batch < 1 or workers < 0:
        raise ValueError(f"--batch must be 1 or more and --workers 0 or more, got {batch} and {workers}.")
    collection = open_images(data)
    clip = load_model(model).clip
    clip.module.to(choose_device(device))
    crew = Workers(readers=workers, batch=batch, write=write)
    store = embed_collection(collection, clip.adapter, Path(output), captions=False, workers=crew)
    say(f"{store.rows:,} embeddings stand in '{store.folder}'; {summary(store.bad, collection)}")
    return 0


@dataclass
class Run:
    """One training, put together from its parts."""

    stage: str
    config: Config
    collection: Collection
    base: UnclipModel | None
    target: Target
    folder: Path
    accelerator: Any

    @property
    def files(self) -> RunFiles:
        """Its checkpoint, log and configuration."""
        return RunFiles(self.folder / TRAINING / self.stage)

    @property
    def lora_path(self) -> Path:
        """Where a LoRA is saved."""
        return self.folder / f"{self.stage}-lora.safetensors"

    def check(self) -> None:
        """Refuse what would only be found once all data is embedded; raises ValueError."""
        training, count = self.config.training, len(self.collection)
        if training.held_out >= count:
            raise ValueError(
                f"training.held_out {training.held_out:,} of {count:,} images leaves none to train on: there must be "
                "some of both."
            )
        check_share(training.batch, training.accumulation, self.accelerator.num_processes)
        _ = self.objective

    def train(self) -> tuple[bool, dict[str, str]]:
        """Whether all steps are done, and the samples that were left out with the reasons."""
        every, known_bad = self._samples()
        samples: StageDataset = every
        held: Chosen | None = None
        training, main = self.config.training, self.accelerator.is_main_process
        if training.held_out:
            samples, held = split(every, self.collection, training.held_out)
        sample = self._sheets(every, held) if training.sample_every > 0 and main else None
        before = self._weights() if self.config.keep_base and main else {}
        source = self._source(every, samples)
        objective = self.objective
        measure = None if held is None else partial(self._measure, objective, every, held)
        hooks = Hooks(partial(self._write, before), sample, measure)
        engine = Engine(objective, source, training, self.files, self.accelerator, hooks)
        finished = engine.run()
        return finished, known_bad | engine.bad

    def _source(self, every: Any, samples: StageDataset) -> BatchSource:
        """What gives the batches of `samples`, which are some of `every`."""
        if not self.config.training.on_device:
            return SampledBatches(samples, self.config.training, self.accelerator)
        rows = samples.rows if isinstance(samples, Chosen) else range(every.count)
        return DeviceBatches(every, rows, self.config.training, self.accelerator)

    def _weights(self) -> dict[str, Tensor]:
        """The net's weights before its first step, in float32."""
        return {name: weight.detach().float().clone() for name, weight in self.target.net.named_parameters()}

    def _write(self, before: Mapping[str, Tensor], averages: Mapping[str, Tensor]) -> None:
        of_net = {name.removeprefix("net."): tensor for name, tensor in averages.items() if name.startswith("net.")}
        if self.config.lora:
            with output_lock(self.folder):
                save_lora(self.lora_path, self.target.net, self.target.family, of_net)
            return
        if share := self.config.keep_base:
            of_net = {name: value.lerp(before[name].to(value), share) for name, value in of_net.items()}
        dtype, settings = self.config.training.save_dtype, self.config.settings
        write_result(self.stage, self.target, self.base, self.folder, of_net, dtype, settings)

    @property
    def _loss(self) -> Any:
        """The stage's own settings."""
        return self.config.loss

    @cached_property
    def objective(self) -> nn.Module:
        """What is minimised. Raises ValueError where the loss does not go with the net."""
        kind, target = objective_class(self.stage), self.target
        if self.stage == "clip":
            return kind(target.clip)
        if self.stage == "decoder":
            weight = self._loss.perceptual
            perceptual = PerceptualLoss(target.clip) if weight else None
            return kind(target.net, target.spec, target.part.codec, perceptual, weight)
        return kind(target.net, target.spec)

    def _samples(self) -> tuple[StageDataset, dict[str, str]]:
        """The stage's samples, and the bad ones that are known already."""
        target, loss = self.target, self._loss
        if self.stage == "clip":
            images = self._image_embeddings() if target.freeze else None
            if target.known is not None and read_state(self.files) is None:
                fit_new_tokens(target.clip, target.known, self.collection)
            return ClipDataset(self.collection, target.clip, images), {} if images is None else images.bad
        if self.stage == "upsampler":
            return UpsamplerDataset(self.collection, target.part, loss), {}
        store = self._embeddings()
        if self.stage == "prior":
            self._settle_statistics(store)
            return PriorDataset(store, target.spec, loss), store.bad
        return DecoderDataset(self.collection, store, target.part, loss, self._latents()), store.bad

    def _sheets(self, samples: Any, held: Chosen | None) -> Callable[[int], Tensor] | None:
        """What draws sheets of samples, of held-out ones where there are any."""
        folder = self.files.folder / "samples"
        sources = None if held is None else held.sources()
        if self.stage == "upsampler":
            return upsampler_sheets(self.target, self.collection, self._loss.size, folder, sources)
        if self.stage == "decoder":
            return decoder_sheets(self.target, samples, folder, None if held is None else held.rows)
        if sources is None or held is None:
            return None
        clip = self.target.clip
        if self.stage == "clip":
            sources = usable(self.collection, sources)
            if not sources:
                return None
            find = partial(clip_find, clip, self.collection, sources)
        else:
            find = partial(prior_find, self._prior(), samples.store, held.rows, self.accelerator.device)
        return retrieval_sheets(self.collection, sources, clip.image_size, find, folder)

    def _measure(self, objective: Any, samples: Any, held: Chosen, step: int) -> dict[str, float]:
        """The figures on held-out samples."""
        device = self.accelerator.device
        if self.stage == "clip":
            return measure_clip(self.target.clip, objective, held, device)
        if self.stage == "prior":
            return measure_prior(self._prior(), objective, samples.store, held, device)
        return mean_losses(objective, held, device)

    def _prior(self) -> Prior:
        target = self.target
        return Prior(target.family, target.net, target.spec, bool(target.header["unit_norm"]))

    @property
    def _workers(self) -> Workers:
        crew, readers = self.accelerator, self.config.training.workers
        return Workers(crew.process_index, crew.num_processes, crew.wait_for_everyone, readers)

    def _latents(self) -> LatentStore | None:
        """The latents of the data, where a net computes them: once, by all processes, each its share."""
        part, folder = self.target.part, self.folder / TRAINING / LATENTS
        if part.codec.module is None:
            return None
        return encode_latents(self.collection, part, folder, self.accelerator.device, self._workers)

    def _embeddings(self) -> EmbeddingStore:
        """CLIP's embeddings of the data, computed by all processes, each its share."""
        return self._embedded(self.target.clip, captions=self.stage == "prior")

    def _embedded(self, clip: Embedder, captions: bool) -> EmbeddingStore:
        clip.model.to(self.accelerator.device)
        store = embed_collection(
            self.collection, clip, self.folder / TRAINING / EMBEDDINGS, captions=captions, workers=self._workers
        )
        clip.model.to("cpu")
        return store

    def _image_embeddings(self) -> EmbeddingStore:
        """The embeddings of an image tower that is not trained, computed once."""
        return self._embedded(ImageTower(self.target.clip), captions=True)

    def _settle_statistics(self, store: EmbeddingStore) -> None:
        """Have a new prior standardise embeddings by the data's mean and deviation; a trained one keeps its own."""
        if self.config.start == "scratch" and read_state(self.files) is None:
            self.target.net.clip_mean.copy_(store.mean)
            self.target.net.clip_std.copy_(store.std)
