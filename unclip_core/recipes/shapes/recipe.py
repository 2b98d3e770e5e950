"""The recipe of the bundled model: CLIP, then prior, decoder and upsamplers on it, each stage gated and resumable.

What is trained how long stands in `phases`, on what in `sources` and `crops`; the training itself is `train.engine`'s.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...clip.open_clip_adapter import OpenClipAdapter, build_open_clip
from ...evaluate.stages import measure_prior, measure_upsampler
from ...families.loading import load_model
from ...families.native.presets import TINY_DIFFUSION, TINY_SCALE, tiny_decoder, tiny_prior, tiny_upsampler
from ...families.native.reader import NativeFolder
from ...families.native.writer import write_index as write_native_index
from ...families.statistics import STATISTICS
from ...models import DECODER_SETTINGS, PRIOR_SETTINGS, UPSAMPLER_SETTINGS, Decoder, Upsampler
from ...nets.decoder import DecoderNet
from ...nets.params import params_to_dict
from ...nets.prior import PriorTransformer
from ...nets.upsampler import UpsamplerNet
from ...output import say
from ...pipelines import to_images
from ...train.batch_sources import BatchSource
from ...train.engine import Engine, Hooks
from ...train.objectives import objective_class
from ...train.processes import OneProcess
from ...train.sample_sheets import decoder_sheet, save_sheet, upsampler_sheet
from ...train.state import RunFiles
from ...weights.computing import computing_dtype, describe_dtype
from ...weights.files import CheckpointError, cast_weights, load_strictly, load_weights, save_weights, write_whole
from .attributes import AttributeHeads
from .clip_config import tiny_clip_config
from .crops import UpsamplerSource
from .gates import clip_gate, failures, fit_heads
from .objectives import ShapesClipObjective, ShapesDecoderObjective
from .phases import PHASES, ClipPhase, DecoderPhase, PriorPhase, UpsamplerPhase
from .sources import ClipSource, DecoderSource, PriorSource, WorldBatches, embedding_statistics

FAMILY = "tiny"
SETTINGS = {
    "prior": asdict(PRIOR_SETTINGS),
    "decoder": asdict(DECODER_SETTINGS),
    "upsampler": asdict(UPSAMPLER_SETTINGS),
}
"""How the bundled model's stages are sampled by default."""
DECODER_SAMPLES, UPSAMPLER_SAMPLES = 16, 4
"""Images of the sheets that stand beside the checkpoints."""
SHEET_STEP = -1000
"""The step whose batch the decoder's sheets show; trainings count up from 0."""
Phase = TypeVar("Phase", ClipPhase, PriorPhase, DecoderPhase, UpsamplerPhase)


def train_tiny(
    output: Path, stages: list[str] | None = None, seed: int = 1, steps: int | None = None, device: str = "cpu"
) -> None:
    """Train the stages in order into `output`, resuming where an earlier run stopped.

    A stage whose weights stand in `output` already is done. The bundled model is such a folder.

    Args:
        output: folder of checkpoints, logs, weights, and the index that makes it a loadable model.
        stages: some of "clip", "prior", "decoder", "upsampler", "second_upsampler"; None for all.
        seed: of initialisation, data and noise.
        steps: in place of the recipe's, for each stage; a phase of several is not made longer by it.
        device: where to train.

    Raises:
        ValueError: a stage is unknown.
        CheckpointError: a stage needs CLIP and it is not trained, or CLIP does not pass its gate.
        KeyboardInterrupt: interrupted; the checkpoint is written, and the same call resumes.
    """
    if unknown := set(stages or ()) - set(PHASES):
        raise ValueError(f"Unknown stages {sorted(unknown)}; known are {list(PHASES)}.")
    output.mkdir(parents=True, exist_ok=True)
    for stage in stages or list(PHASES):
        if not (output / f"{stage}.safetensors").is_file():
            torch.manual_seed(seed)
            with _fast_attention(device):
                TRAINERS[stage](output, shortened(PHASES[stage], steps), seed, torch.device(device))
        write_index(output)


def shortened(phases: Sequence[Phase], steps: int | None) -> list[Phase]:
    """The phases with `steps` in place of their own; where there are several, of those that are longer alone."""
    if steps is None:
        return list(phases)
    counts = [steps if len(phases) == 1 else min(phase.training.steps, steps) for phase in phases]
    return [
        replace(phase, training=replace(phase.training, steps=count))
        for phase, count in zip(phases, counts, strict=True)
    ]


def write_index(output: Path) -> None:
    """Name the components that stand in the folder."""
    components = {name: f"{name}.safetensors" for name in PHASES if (output / f"{name}.safetensors").is_file()}
    write_native_index(output, FAMILY, components, SETTINGS)


def train_clip(output: Path, phases: Sequence[ClipPhase], seed: int, device: torch.device) -> None:
    """Train CLIP; the attribute heads of its last phase are saved beside it for the gate."""
    config = tiny_clip_config()
    trained: dict[str, Tensor] = {}
    for number, phase in enumerate(phases, start=1):
        objective = ShapesClipObjective(build_open_clip(config), config, phase)
        if phase.shared_heads:
            trained = {name: t for name, t in trained.items() if not name.startswith("text_heads.")}
        objective.load_state_dict(trained, strict=False)
        source = ClipSource(config, phase, seed + number - 1, device)
        engine = run_phase(f"clip-{number}", objective, source, phase, output, seed + number - 1, device)
        trained = engine.trained_state()
    averaged = engine.averaged_state()
    _export(output / "clip-heads.safetensors", averaged, "heads.", {}, torch.float32)
    _export(output / "clip.safetensors", averaged, "net.", asdict(config))


def train_prior(output: Path, phases: Sequence[PriorPhase], seed: int, device: torch.device) -> None:
    """Train the prior on the embeddings of a CLIP that passes its gate."""
    check_clip(output)
    (phase,), spec = phases, TINY_DIFFUSION["prior"]
    batch, unnamed = phase.training.batch, phase.unnamed
    batches = WorldBatches(
        _trained_clip(output, device), batch, seed, empty_captions=phase.empty_captions, unnamed=unnamed
    )
    net = PriorTransformer(tiny_prior())
    mean, std = embedding_statistics(batches, 32)
    net.clip_mean.data.copy_(mean)
    net.clip_std.data.copy_(std)
    objective = objective_class("prior")(net, spec)
    engine = run_phase("prior", objective, PriorSource(batches, spec, seed), phase, output, seed, device)
    tensors = engine.averaged_state() | {"net.clip_mean": mean, "net.clip_std": std}
    config = {"net": params_to_dict(net.params), "diffusion": asdict(spec), "unit_norm": True}
    _export(output / "prior.safetensors", tensors, "net.", config)
    write_index(output)
    model = load_model(output)
    _keep(output / "prior-measure.json", measure_prior(model.clip, model.prior, 256, seed=0))


def train_decoder(output: Path, phases: Sequence[DecoderPhase], seed: int, device: torch.device) -> None:
    """Train the decoder on the embeddings of a CLIP that passes its gate.

    Each phase leaves its averaged weights in fp16 as `decoder-<number>.safetensors`, and starts from those of the
    phase before. So a phase can be added to a decoder that stands there already: `decoder.safetensors`, the copy of
    the last, then has to go first.
    """
    check_clip(output)
    files = [output / f"decoder-{number}.safetensors" for number in range(len(phases) + 1)]
    for number, phase in enumerate(phases, start=1):
        if not files[number].is_file():
            net = DecoderNet(tiny_decoder())
            if number > 1:
                load_strictly(net, load_weights(files[number - 1])[0], files[number - 1].name)
            tensors = _decoder_phase(number, phase, net, output, seed + number - 1, device)
            config = {"net": net.params.to_dict(), "diffusion": asdict(TINY_DIFFUSION["decoder"])}
            _export(files[number], tensors, "net.", config)
    write_whole(output / "decoder.safetensors", files[-1].read_bytes())


def _decoder_phase(
    number: int, phase: DecoderPhase, net: DecoderNet, output: Path, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """Train a phase; returns the averaged weights."""
    net.to(memory_format=torch.channels_last)
    clip = _trained_clip(output, device)
    batches = WorldBatches(clip, phase.training.batch, seed, unnamed=phase.unnamed)
    spec = TINY_DIFFUSION["decoder"]
    source = DecoderSource(batches, spec, phase, seed)
    kind: type[ShapesDecoderObjective] = objective_class(phase.objective)
    objective = kind(net, spec, phase.freeze_boxes)
    sheet = partial(_decoder_sheet, net, batches) if kind is ShapesDecoderObjective else None
    file = output / "decoder-sheet.png"
    engine = run_phase(f"decoder-{number}", objective, source, phase, output, seed, device, sheet, file)
    return engine.averaged_state()


def _decoder_sheet(net: DecoderNet, batches: WorldBatches) -> Tensor:
    """True images above what the decoder draws of their image embeddings alone."""
    batch = batches.draw(SHEET_STEP)
    part = Decoder(FAMILY, net, TINY_DIFFUSION["decoder"], net.params.image_size, settings=DECODER_SETTINGS)
    return decoder_sheet(part, to_images(batch.images[:DECODER_SAMPLES]), batch.image_embeds[:DECODER_SAMPLES])


def train_upsampler(output: Path, phases: Sequence[UpsamplerPhase], seed: int, device: torch.device) -> None:
    """Train the upsampler of the decoder's images, which needs no other stage."""
    net = UpsamplerNet(tiny_upsampler())
    _train_upsampler("upsampler", net, phases, output, seed, device)
    _keep(output / "upsampler-measure.json", measure_upsampler(load_model(output).upsampler, 32, seed=0))


def train_second_upsampler(output: Path, phases: Sequence[UpsamplerPhase], seed: int, device: torch.device) -> None:
    """Train the upsampler of the first one's images, from the first one's weights: its task is much the same."""
    net = UpsamplerNet(tiny_upsampler())
    file = output / "upsampler.safetensors"
    if not file.is_file():
        raise CheckpointError(f"The second upsampler starts from the first: train that before, '{file}' is missing.")
    load_strictly(net, load_weights(file)[0], str(file))
    size = phases[0].size
    _train_upsampler("second_upsampler", net, phases, output, seed, device, from_size=size // TINY_SCALE)
    second = load_model(output).upsampler.second
    _keep(output / "second_upsampler-measure.json", measure_upsampler(second, 8, seed=0, size=size))


def _train_upsampler(
    name: str,
    net: UpsamplerNet,
    phases: Sequence[UpsamplerPhase],
    output: Path,
    seed: int,
    device: torch.device,
    **more: int,
) -> None:
    (phase,), spec = phases, TINY_DIFFUSION["upsampler"]
    source = UpsamplerSource(phase, spec, seed, device)
    objective = objective_class("upsampler")(net.to(memory_format=torch.channels_last), spec)
    sheet = partial(_upsampler_sheet, net, source)
    file = output / f"{name}-sheet.png"
    engine = run_phase(name, objective, source, phase, output, seed, device, sheet, file)
    config = {"net": params_to_dict(net.params), "diffusion": asdict(spec), "scale": TINY_SCALE}
    _export(output / f"{name}.safetensors", engine.averaged_state(), "net.", config | more)
    write_index(output)


def _upsampler_sheet(net: UpsamplerNet, source: UpsamplerSource) -> Tensor:
    part = Upsampler(FAMILY, net, TINY_DIFFUSION["upsampler"], TINY_SCALE)
    return upsampler_sheet(part, to_images(source.images(-1)[:UPSAMPLER_SAMPLES]))


TRAINERS: dict[str, Callable[[Path, Any, int, torch.device], None]] = {
    "clip": train_clip,
    "prior": train_prior,
    "decoder": train_decoder,
    "upsampler": train_upsampler,
    "second_upsampler": train_second_upsampler,
}


def run_phase(
    name: str,
    objective: nn.Module,
    source: BatchSource,
    phase: ClipPhase | PriorPhase | DecoderPhase | UpsamplerPhase,
    output: Path,
    seed: int,
    device: torch.device,
    sheet: Callable[[], Tensor] | None = None,
    sheet_file: Path | None = None,
) -> Engine:
    """Train the objective in bfloat16 with float32 masters, into `<name>.state.pt` and `<name>.log.jsonl`.

    On a CPU that only emulates bfloat16 it is trained in float32.

    With `sheet`, a sheet of samples of the averaged weights is drawn into `sheet_file` beside each checkpoint.

    Raises:
        KeyboardInterrupt: interrupted; the checkpoint is written.
    """
    told = {**asdict(phase), "seed": seed, "device": str(device), "precision": describe_dtype(torch.bfloat16, device)}
    say(f"Training {name}: {json.dumps(told)}")

    def draw(averages: object) -> None:
        if sheet is not None and sheet_file is not None:
            with engine.averaged(), torch.no_grad():
                save_sheet(sheet(), sheet_file)

    training = replace(phase.training, seed=seed)
    files = RunFiles(output, name)
    objective = objective.to(device, computing_dtype(torch.bfloat16, device))
    engine = Engine(objective, source, training, files, OneProcess(device), Hooks(draw))
    if not engine.run():
        raise KeyboardInterrupt
    return engine


def check_clip(output: Path, count: int = 512) -> None:
    """Measure the trained CLIP once, keep the figures in `clip-gate.json`, and refuse one that binds badly.

    The linear heads are those that it was trained with or, where they are gone, fitted anew to its embeddings.

    Raises:
        CheckpointError: CLIP is not trained yet, or a figure of the trained pairs lies under the gate.
    """
    write_index(output)
    clip: Any = NativeFolder(output, torch.float32).clip().adapter
    kept = output / "clip-heads.safetensors"
    if kept.is_file():
        heads = AttributeHeads()
        load_strictly(heads, load_weights(kept)[0], kept.name)
    else:
        heads = fit_heads(clip)
    results = clip_gate(clip, heads, count, seed=0)
    _keep(output / "clip-gate.json", results)
    if missed := failures(results):
        raise CheckpointError(f"CLIP does not pass its gate ({', '.join(missed)}): train it longer before the rest.")


def _trained_clip(output: Path, device: torch.device) -> OpenClipAdapter:
    adapter: Any = NativeFolder(output, torch.float32).clip().adapter
    adapter.model.to(device)
    return adapter


def _keep(path: Path, figures: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(figures, indent=2) + "\n").encode())
    say(f"{path.name}: {json.dumps(figures)}")


def _fast_attention(device: str) -> AbstractContextManager[Any]:
    # On a CPU the explicit product has a much faster backward than the fused kernel.
    return sdpa_kernel([SDPBackend.MATH] if device == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])


def _export(
    path: Path, tensors: dict[str, Tensor], prefix: str, config: dict[str, Any], dtype: torch.dtype = torch.float16
) -> None:
    chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    save_weights(path, cast_weights(chosen, dtype, path, STATISTICS), config)
