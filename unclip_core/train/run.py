"""`unclip train clip | prior | decoder | upsampler` and `unclip embed`: from paths to a model folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..data.opening import open_images
from ..data.samples import Collection, summary
from ..families.loading import load_model
from ..models import UnclipModel
from .config import Config, read_config
from .datasets import ClipItems, DecoderItems, Items, PriorItems, UpsamplerItems
from .embeds import Crew, EmbeddingStore, embed_collection
from .engine import Engine, Hooks, make_accelerator
from .lora import save_lora
from .objectives import ClipStage, DecoderStage, PriorStage, UpsamplerStage
from .results import check_output, write_result
from .sample_sheets import decoder_sheet, upsampler_sheet
from .state import clear_leftovers, read_state, settle_config
from .targets import Subject, make_subject, open_base

TRAINING, EMBEDDINGS = "training", "embeddings"
INTERRUPTED = 130


def train_own(stage: str, data: str, config_path: str, output: str, dry_run: bool = False, cpu: bool = False) -> int:
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
    base = open_base(config, folder)
    subject = make_subject(stage, config, base, folder)
    if config.lora is None:
        check_output(stage, subject, base, folder)
    accelerator = make_accelerator(config.training, cpu)
    accelerator.print(_description(stage, config, collection, subject, folder, accelerator), flush=True)
    if dry_run:
        accelerator.print("Everything fits. Nothing was written: leave out --dry-run to train.")
        return 0
    # All processes look before the first one writes.
    settle_config(folder / TRAINING / stage, config.to_dict(), str(data), write=False)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        clear_leftovers(folder, folder / TRAINING / stage)
        settle_config(folder / TRAINING / stage, config.to_dict(), str(data), write=True)
    run = Run(stage, config, collection, base, subject, folder, accelerator)
    finished, bad = run.train()
    accelerator.print(summary(bad, len(collection)))
    if not finished:
        accelerator.print(f"Interrupted; the same command goes on. '{folder}' holds the model as it is now.")
        return INTERRUPTED
    if config.lora is None:
        accelerator.print(
            f"'{folder}' is a model folder: put it into ComfyUI/models/unclip, or name it where one is asked for."
        )
    else:
        accelerator.print(f"'{run.lora_path}' is a LoRA: put it into ComfyUI/models/loras.")
    return 0


def embed_own(data: str, output: str, model: str | None = None) -> int:
    """Compute CLIP's embeddings of own images and captions into the folder `output`, once.

    `model`: a model folder; None for the bundled one. Raises ValueError and OSError as `train_own`.
    """
    collection = open_images(data)
    store = embed_collection(collection, load_model(model).clip.adapter, Path(output), captions=False)
    print(f"{store.rows:,} embeddings stand in '{store.folder}'; {summary(store.bad, len(collection))}")
    return 0


@dataclass
class Run:
    """One training, put together from its parts."""

    stage: str
    config: Config
    collection: Collection
    base: UnclipModel | None
    subject: Subject
    folder: Path
    accelerator: Any

    def train(self) -> tuple[bool, dict[str, str]]:
        """Whether all steps are done, and the samples that were left out with the reasons."""
        place = self.folder / TRAINING / self.stage
        module, items, sample, bad = self._parts(place / "samples")
        draws = self.config.training.sample_every > 0 and self.accelerator.is_main_process
        hooks = Hooks(self._write, sample if draws else None)
        engine = Engine(module, items, self.config.training, place, self.accelerator, hooks)
        finished = engine.run()
        return finished, bad | engine.bad

    @property
    def lora_path(self) -> Path:
        """Where a LoRA is saved."""
        return self.folder / f"{self.stage}-lora.safetensors"

    def _write(self, averages: Mapping[str, Tensor]) -> None:
        if self.config.lora:
            save_lora(self.lora_path, self.subject.net, self.subject.family, averages)
            return
        dtype = self.config.training.save_dtype
        write_result(self.stage, self.subject, self.base, self.folder, averages, dtype)

    def _parts(self, samples: Path) -> tuple[nn.Module, Items, Any, dict[str, str]]:
        """The stage's module, its items, what draws its samples, and the bad samples that are known already."""
        subject, loss = self.subject, self.config.loss
        wanted = self.config.training.sample_every > 0
        if self.stage == "clip":
            return ClipStage(subject.clip), ClipItems(self.collection, subject.clip), None, {}
        if self.stage == "upsampler":
            items = UpsamplerItems(self.collection, subject.spec, loss, subject.header["scale"], subject.clamp)
            draw = upsampler_sheet(subject, self.collection, loss.size, samples) if wanted else None
            return UpsamplerStage(subject.net, subject.spec), items, draw, {}
        store = self._embeddings()
        if self.stage == "prior":
            self._settle_statistics(store)
            return PriorStage(subject.net, subject.spec), PriorItems(store, subject.spec, loss), None, store.bad
        items = DecoderItems(self.collection, store, subject.spec, loss, subject.net.params.image_size)
        draw = decoder_sheet(subject, items, samples) if wanted else None
        return DecoderStage(subject.net, subject.spec), items, draw, store.bad

    def _embeddings(self) -> EmbeddingStore:
        """What CLIP says of the data, computed by all processes, each its share."""
        accelerator, clip = self.accelerator, self.subject.clip
        clip.model.to(accelerator.device)
        crew = Crew(accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone)
        store = embed_collection(
            self.collection, clip, self.folder / TRAINING / EMBEDDINGS, captions=self.stage == "prior", crew=crew
        )
        clip.model.to("cpu")
        return store

    def _settle_statistics(self, store: EmbeddingStore) -> None:
        """A new prior works on embeddings of mean 0 and deviation 1 a dimension; one that is trained keeps its own."""
        if self.config.start == "scratch" and read_state(self.folder / TRAINING / self.stage) is None:
            self.subject.net.clip_mean.copy_(store.mean)
            self.subject.net.clip_std.copy_(store.std)


def _description(
    stage: str, config: Config, collection: Collection, subject: Subject, folder: Path, accelerator: Any
) -> str:
    count, trained = (
        sum(p.numel() for p in subject.net.parameters() if p.requires_grad or frozen) for frozen in (True, False)
    )
    images = config.training.steps * config.training.batch
    return "\n".join(
        [
            f"Training {stage}: {json.dumps(config.to_dict(), indent=2)}",
            f"Net: {count:,} parameters, {trained:,} of them trained, family '{subject.family}'.",
            f"Data: {len(collection):,} images, {images / len(collection):.1f} times each. Result: '{folder}'.",
            f"Processes: {accelerator.num_processes}, each on {accelerator.device.type}.",
        ]
    )
