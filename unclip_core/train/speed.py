"""`unclip bench train`: images a second that a decoder is trained on, read from files, by each way that a GPU has."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..data.opening import open_images
from ..fresh_process import ask
from ..nets.memory_formats import PLAIN_VARIABLE
from ..output import say
from ..weights.devices import AUTO, choose_device, describe_device, device_peak_gib, forget_peak, synchronise
from .batch_sources import BatchSource, Part, SampledBatches
from .config import config_from_dict
from .datasets import DecoderDataset
from .device_batches import DeviceBatches
from .embeds import embed_collection
from .engine import Engine, Hooks
from .objectives import objective_class
from .processes import make_accelerator
from .state import RunFiles, read_log
from .targets import make_target, open_base

WAYS = ("plain", "channels_last", "compiled", "tuned")
"""Torch's own ways; channels last with the norm's kernels, where a GPU has them (else as plain); channels last through
torch's compiler, without those kernels; as channels last, with cuDNN timing its algorithms."""
SIZES = {"small": "bundled (things)", "tiny": "bundled (shapes)"}
"""Presets of a new decoder, and the bundled models whose CLIP goes with them."""
PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
WARM = 10
"""Steps before time counts."""
SIDES = 72, 96
"""Of the images, px."""


def bench_train(
    size: str = "small",
    dtype: str = "fp32",
    batch: int = 256,
    steps: int = 60,
    images: int = 2048,
    workers: int | None = None,
    ways: Sequence[str] = WAYS[:2],
    optimizer: str = "auto",
    device: str = AUTO,
    as_json: bool = False,
) -> dict[str, Any]:
    """Train a new decoder for some steps, in a fresh process a way; print the figures and return them.

    Args:
        size: of the decoder, a name in `SIZES`.
        dtype: a name in `PRECISIONS`; what is not float32 is mixed precision.
        batch: images a step.
        steps: that are timed.
        images: so many JPEG files are trained on; CLIP's embeddings of them are computed beforehand.
        workers: processes that read them; None for the processor's cores but one, on a CPU, which trains, for none.
        ways: of `WAYS`.
        optimizer: as of `Training`; Muon's iterations are in bfloat16, which takes minutes a step where it is emulated.
        device: what is trained on.
        as_json: print JSON in place of text.

    Returns:
        What was asked for; by way under "ways" `with_data`, `on_device` and `without` (images a second: read from
        files, lying on the device as `training.on_device` has them, or one batch again and again), `first` (seconds of
        the first step: compiling), `loss` (mean of all steps) and `peak_device_gib` (None for a CPU).

    Raises:
        ValueError: this machine has no such device, or accelerate is not installed.
        FailedProcess: a process failed; the message ends with what it said.
    """
    if min(batch, steps, images) < 1:
        raise ValueError(f"--batch, --steps and --images must be 1 or more, got {batch}, {steps} and {images}.")
    place = choose_device(device)
    if workers is None:
        workers = 0 if place.type == "cpu" else max(1, (os.cpu_count() or 2) - 1)
    asked: dict[str, Any] = {
        "size": size,
        "dtype": dtype,
        "batch": batch,
        "steps": steps,
        "images": images,
        "workers": workers,
    }
    asked["optimizer"] = optimizer
    figures: dict[str, Any] = {**asked, "device": describe_device(place), "torch": torch.__version__, "ways": {}}
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch) / "data", images)
        for way in ways:
            figures["ways"][way] = _process({**asked, "way": way, "device": str(place), "folder": scratch})
            say(f"{way}: {_line(figures['ways'][way])}", to_stderr=True)
    say(json.dumps(figures, indent=2) if as_json else _text(figures))
    return figures


def write_images(folder: Path, count: int) -> None:
    """Write smooth images as JPEG files, with captions."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        coarse = torch.rand(6, 8, 3, generator=generator).mul(255).to(torch.uint8)
        image = Image.fromarray(coarse.numpy()).resize(SIDES[::-1], Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}.jpg", quality=90)
        (folder / f"{number:05}.txt").write_text("a red circle", encoding="utf-8")


def _process(job: dict[str, Any]) -> dict[str, Any]:
    own = {"ACCELERATE_TORCH_DEVICE": job["device"]}
    if job["way"] not in ("channels_last", "tuned"):
        own[PLAIN_VARIABLE] = "1"
    found: dict[str, Any] = ask(job["way"], ["-m", __name__, json.dumps(job)], own)
    return found


class Timed:
    """A source of batches that notes when steps begin: the first, the second, the one behind `WARM`, and the last."""

    def __init__(self, source: BatchSource, steps: int, device: torch.device) -> None:
        self.times: list[float] = []
        self._source, self._marks, self._device = source, (0, 1, WARM, WARM + steps), device

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """See `BatchSource.steps`."""
        for number, parts in enumerate(self._source.steps(first, last)):
            if number in self._marks:
                synchronise(self._device)
                self.times.append(time.perf_counter())
            yield parts


class Repeated:
    """One batch again and again."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts

    def steps(self, first: int, last: int) -> Iterator[list[Part]]:
        """See `BatchSource.steps`."""
        for _ in range(first, last):
            yield [dict(part) for part in self._parts]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Train as the job says, in this process; see `bench_train`."""
    count, folder = job["steps"], Path(job["folder"]) / job["way"]
    training = {"batch": job["batch"], "steps": WARM + count + 1, "workers": job["workers"], "save_minutes": 1e6}
    training |= {"precision": PRECISIONS[job["dtype"]], "warmup": 10, "log_every": WARM + count}
    training |= {"optimizer": job["optimizer"]}
    config = config_from_dict(
        {"start": "scratch", "base": SIZES[job["size"]], "net": {"preset": job["size"]}, "training": training},
        "decoder",
    )
    crew = make_accelerator(config.training, cpu=job["device"] == "cpu")
    base = open_base("decoder", config, folder)
    target = make_target("decoder", config, base, folder)
    collection = open_images(Path(job["folder"]) / "data")
    target.clip.model.to(crew.device)
    store = embed_collection(collection, target.clip, Path(job["folder"]) / "embeddings", captions=False)
    target.clip.model.to("cpu")
    torch.backends.cudnn.benchmark = job["way"] == "tuned"  # this process is of one way
    if job["way"] == "compiled":
        compile_net(target.net)
    objective = objective_class("decoder")(target.net, target.spec, target.part.codec)
    loss: Any = config.loss
    samples = DecoderDataset(collection, store, target.part, loss)
    files = SampledBatches(samples, config.training, crew)
    forget_peak(crew.device)
    found: dict[str, Any] = {}
    lone = Repeated([dict(part) for part in next(iter(files.steps(0, 1)))])
    held = DeviceBatches(samples, range(samples.count), config.training, crew)
    sources: dict[str, BatchSource] = {"without": lone, "with_data": files, "on_device": held}
    for name, source in sources.items():
        timed = Timed(source, count, crew.device)
        run = RunFiles(folder / name)
        engine = Engine(objective, timed, config.training, run, crew, Hooks(save=lambda averages: None))
        if not engine.run():
            raise RuntimeError("the training was interrupted.")
        began, second, warm, end = timed.times
        found[name] = job["batch"] * count / (end - warm)
        found.setdefault("first", second - began)
        found["loss"] = read_log(run)[-1]["loss"]
    return found | {"peak_device_gib": device_peak_gib(crew.device)}


def compile_net(net: nn.Module) -> None:
    """Have torch compile the net when it is first called, with weights channels last."""
    net.to(memory_format=torch.channels_last)
    net.compile()


def _line(found: dict[str, Any]) -> str:
    memory = "" if found["peak_device_gib"] is None else f", {found['peak_device_gib']:.2f} GiB of the device"
    return (
        f"{found['with_data']:,.0f} images a second, {found['on_device']:,.0f} that lie on the device, "
        f"{found['without']:,.0f} without any data; "
        f"first step {found['first']:.1f} s, loss {found['loss']:.3f}{memory}"
    )


def _text(figures: dict[str, Any]) -> str:
    asked = [f"size {figures['size']}", figures["dtype"], f"batches of {figures['batch']}", f"{figures['steps']} steps"]
    asked += [f"{figures['workers']} processes reading", f"optimizer {figures['optimizer']}", figures["device"]]
    head = f"decoder, {', '.join(asked)}, torch {figures['torch']}"
    return "\n".join([head, *(f"  {way:14} {_line(found)}" for way, found in figures["ways"].items())])


if __name__ == "__main__":
    say(json.dumps(measure(json.loads(sys.argv[1]))))
