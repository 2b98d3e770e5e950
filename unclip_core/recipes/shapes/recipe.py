"""The recipe of the bundled model: CLIP, then prior, decoder and upsamplers on it, each stage gated and resumable."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...clip.open_clip_adapter import build_open_clip
from ...evaluate.stages import measure_prior, measure_upsampler
from ...families.loading import load_model
from ...families.native.presets import tiny_decoder, tiny_prior, tiny_upsampler
from ...families.native.reader import FORMAT, INDEX, read_clip
from ...nets.decoder import DecoderNet
from ...nets.params import params_to_dict
from ...nets.prior import PriorTransformer
from ...nets.upsampler import UpsamplerNet
from ...weights.files import CheckpointError, load_strictly, load_weights, save_weights, write_whole
from . import decoder, prior, upsampler
from .batches import WorldBatches
from .clip import AttributeHeads, ClipPhase, ClipTraining, tiny_clip_config
from .decoder import DecoderPhase, DecoderTraining
from .gates import clip_gate, failures, fit_heads
from .loop import Loop, LoopConfig
from .sheets import save_decoder_sheet, save_upsampler_sheet

FAMILY = "tiny"
CLIP_PHASES = (
    # Colours, places and retrieval come first; the many small steps of the second phase bring shapes and binding.
    ClipPhase(LoopConfig(steps=1800, stop=1419, lr=1e-3, warmup=150, weight_decay=0.02, ema=0.998), batch=128),
    ClipPhase(
        LoopConfig(steps=2600, stop=778, lr=6e-4, warmup=50, weight_decay=0.02, ema=0.998),
        batch=48,
        shape_weight=3.0,
        said_weight=1.0,
        shared_heads=True,
    ),
    ClipPhase(
        LoopConfig(steps=1500, lr=8e-4, warmup=50, weight_decay=0.02, ema=0.998),
        batch=64,
        shape_weight=3.0,
        said_weight=0.5,
        shared_heads=True,
        patch_weight=2.0,
    ),
    ClipPhase(
        LoopConfig(steps=450, lr=6e-4, warmup=30, weight_decay=0.02, ema=0.996),
        batch=64,
        shape_weight=3.0,
        said_weight=0.5,
        shared_heads=True,
        patch_weight=1.0,
    ),
    # Colours without a name teach what a shape is in whatever colour: the pairs that are held out gain most.
    ClipPhase(
        LoopConfig(steps=3300, stop=1938, lr=8e-4, warmup=50, weight_decay=0.02, ema=0.998),
        batch=64,
        shape_weight=3.0,
        said_weight=0.5,
        shared_heads=True,
        patch_weight=1.0,
        unnamed=0.35,
    ),
    ClipPhase(
        LoopConfig(steps=900, lr=5e-4, warmup=20, weight_decay=0.02, ema=0.997),
        batch=64,
        shape_weight=3.0,
        said_weight=0.5,
        shared_heads=True,
        patch_weight=1.0,
        unnamed=0.35,
    ),
)
DECODER_PHASES = (
    # What the canvases show, before there is a UNet to lean on them.
    DecoderPhase(
        LoopConfig(steps=1000, lr=2e-3, warmup=30, weight_decay=0.01, ema=0.98, muon=True), batch=128, canvases=True
    ),
    DecoderPhase(LoopConfig(steps=5200, lr=1.2e-3, warmup=50, weight_decay=0.01, ema=0.998, muon=True)),
    # The canvases now hold nearly every shape rightly, and the UNet, told 2 px wrongly where they lie, blurs them.
    DecoderPhase(
        LoopConfig(steps=3000, lr=1e-3, warmup=100, weight_decay=0.01, ema=0.998, muon=True),
        true_boxes=0.8,
        still=True,
        unnamed=0.35,
    ),
    # More colours without a name: pairs that are held out still took the shape of a neighbour.
    DecoderPhase(
        LoopConfig(steps=2200, lr=1e-3, warmup=50, weight_decay=0.01, ema=0.998, muon=True),
        true_boxes=0.8,
        still=True,
        unnamed=0.5,
    ),
    DecoderPhase(
        LoopConfig(steps=1000, lr=6e-4, warmup=50, weight_decay=0.01, ema=0.998, muon=True),
        true_boxes=0.8,
        still=True,
        unnamed=0.5,
        noise=0.3,
    ),
)
LOOPS = {
    "clip": CLIP_PHASES[-1].loop,
    "prior": LoopConfig(steps=400, lr=2e-3, warmup=30, weight_decay=0.01, ema=0.995, muon=True),
    "decoder": DECODER_PHASES[-1].loop,
    "upsampler": LoopConfig(steps=2000, lr=1.5e-3, warmup=50, weight_decay=0.0, ema=0.995, muon=True),
    "second_upsampler": LoopConfig(steps=800, lr=5e-4, warmup=20, weight_decay=0.0, ema=0.99, muon=True),
}
BATCHES = {
    "clip": CLIP_PHASES[-1].batch,
    "prior": 128,
    "decoder": DECODER_PHASES[-1].batch,
    "upsampler": 16,
    "second_upsampler": 16,
}
PRIOR_UNNAMED = 0.1
"""Share of things in colours without a name; a DecoderPhase states its own."""


def train_tiny(
    output: Path, stages: list[str] | None = None, seed: int = 1, steps: int | None = None, device: str = "cpu"
) -> None:
    """Train the stages in order into `output`, going on where an earlier run stopped.

    A stage whose weights stand in `output` already is done. The bundled model is such a folder.

    Args:
        output: folder of checkpoints, logs, weights, and the index that makes it a loadable model.
        stages: some of "clip", "prior", "decoder", "upsampler", "second_upsampler"; None for all.
        seed: of initialisation, data and noise.
        steps: in place of the recipe's, for each stage.
        device: where to train.

    Raises:
        ValueError: a stage is unknown.
        CheckpointError: a stage needs CLIP and it is not trained, or CLIP does not pass its gate.
    """
    if unknown := set(stages or ()) - set(LOOPS):
        raise ValueError(f"Unknown stages {sorted(unknown)}; known are {list(LOOPS)}.")
    output.mkdir(parents=True, exist_ok=True)
    for stage in stages or list(LOOPS):
        if not (output / f"{stage}.safetensors").is_file():
            loop = LOOPS[stage] if steps is None else replace(LOOPS[stage], steps=steps)
            _announce(stage, loop, seed, device)
            torch.manual_seed(seed)
            with _fast_attention(device):
                TRAINERS[stage](output, loop, seed, torch.device(device))
        write_index(output)


def write_index(output: Path) -> None:
    """Name the components that stand in the folder."""
    components = {name: f"{name}.safetensors" for name in LOOPS if (output / f"{name}.safetensors").is_file()}
    index = {"format": FORMAT, "family": FAMILY, "components": components}
    write_whole(output / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def train_clip(output: Path, loop_config: LoopConfig, seed: int, device: torch.device) -> None:
    """Train CLIP in its phases, the last with `loop_config`; its attribute heads are saved beside it for the gate."""
    config = tiny_clip_config()
    trained: dict[str, torch.Tensor] = {}
    for number, phase in enumerate(_phases(loop_config), start=1):
        training = ClipTraining(build_open_clip(config), config, phase, seed + number - 1)
        if phase.shared_heads:
            trained = {name: t for name, t in trained.items() if not name.startswith("text_heads.")}
        training.load_state_dict(trained, strict=False)
        loop = Loop(f"clip-{number}", training.to(device, torch.bfloat16), phase.loop, output)
        loop.run(training.loss)
        trained = loop.trained()
    averaged = loop.averaged()
    heads = {name.removeprefix("heads."): t for name, t in averaged.items() if name.startswith("heads.")}
    save_weights(output / "clip-heads.safetensors", heads, {})
    _export(output / "clip.safetensors", averaged, "model.", asdict(config))


def _phases(last: LoopConfig) -> list[ClipPhase]:
    # A short run (of a test, say) shortens every phase.
    loops = _shortened([phase.loop for phase in CLIP_PHASES], last)
    return [replace(phase, loop=loop) for phase, loop in zip(CLIP_PHASES, loops, strict=True)]


def _shortened(loops: Sequence[LoopConfig], last: LoopConfig) -> list[LoopConfig]:
    return [replace(loop, steps=min(loop.steps, last.steps)) if last is not loops[-1] else loop for loop in loops]


def train_prior(output: Path, loop_config: LoopConfig, seed: int, device: torch.device) -> None:
    """Train the prior on the embeddings of a CLIP that passes its gate."""
    check_clip(output)
    batches = _batches(
        output, device, BATCHES["prior"], seed, pair_fraction=0.6, empty_captions=0.1, unnamed=PRIOR_UNNAMED
    )
    net = PriorTransformer(tiny_prior())
    mean, std = prior.embedding_statistics(batches, 32)
    net.clip_mean.data.copy_(mean)
    net.clip_std.data.copy_(std)
    training = prior.PriorTraining(net, batches, seed).to(device, torch.bfloat16)
    averaged = _run("prior", training, loop_config, output)
    config = {"net": params_to_dict(net.params), "diffusion": asdict(prior.DIFFUSION), "unit_norm": True}
    _export(output / "prior.safetensors", averaged | {"net.clip_mean": mean, "net.clip_std": std}, "net.", config)
    write_index(output)
    model = load_model(output)
    _keep(output / "prior-measure.json", measure_prior(model.clip, model.prior, 256, seed=0))


def train_decoder(output: Path, loop_config: LoopConfig, seed: int, device: torch.device) -> None:
    """Train the decoder in its phases, the last with `loop_config`; its CLIP must pass the gate.

    Each phase leaves the weights it arrived at, averaged and in fp16, as `decoder-<number>.safetensors`, and starts
    from those of the phase before. So a phase can be added to a decoder that stands there already:
    `decoder.safetensors`, the copy of the last, then has to go first.
    """
    check_clip(output)
    loops = _shortened([phase.loop for phase in DECODER_PHASES], loop_config)
    stands = [output / f"decoder-{number}.safetensors" for number in range(len(loops) + 1)]
    for number, (phase, loop) in enumerate(zip(DECODER_PHASES, loops, strict=True), start=1):
        if not stands[number].is_file():
            net = DecoderNet(tiny_decoder())
            if number > 1:
                load_strictly(net, load_weights(stands[number - 1])[0], stands[number - 1].name)
            tensors = _decoder_phase(number, replace(phase, loop=loop), net, output, seed + number - 1, device)
            config = {"net": net.params.to_dict(), "diffusion": asdict(decoder.DIFFUSION)}
            _export(stands[number], tensors, "net.", config)
    write_whole(output / "decoder.safetensors", stands[-1].read_bytes())


def _decoder_phase(
    number: int, phase: DecoderPhase, net: DecoderNet, output: Path, seed: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """The averaged weights that the phase arrives at."""
    net.to(memory_format=torch.channels_last)
    batches = _batches(output, device, phase.batch, seed, pair_fraction=0.6, empty_captions=0.0, unnamed=phase.unnamed)
    training = DecoderTraining(net, batches, seed, phase.true_boxes, phase.still, phase.noise)
    loop = Loop(f"decoder-{number}", training.to(device, torch.bfloat16), phase.loop, output)
    if phase.canvases:
        loop.run(training.canvas_loss)
    else:
        loop.run(training.loss, lambda: save_decoder_sheet(loop, net, batches, output / "decoder-sheet.png"))
    return loop.averaged()


def train_upsampler(output: Path, loop_config: LoopConfig, seed: int, device: torch.device) -> None:
    """Train the upsampler of the decoder's images, which needs no other stage."""
    net = UpsamplerNet(tiny_upsampler()).to(memory_format=torch.channels_last)
    _train_upsampler("upsampler", net, upsampler.FIRST, loop_config, output, seed, device)
    _keep(output / "upsampler-measure.json", measure_upsampler(load_model(output).upsampler, 32, seed=0))


def train_second_upsampler(output: Path, loop_config: LoopConfig, seed: int, device: torch.device) -> None:
    """Train the upsampler of the first one's images; it goes on from the first, whose task is much the same."""
    net = UpsamplerNet(tiny_upsampler())
    file = output / "upsampler.safetensors"
    if not file.is_file():
        raise CheckpointError(f"The second upsampler starts from the first: train that before, '{file}' is missing.")
    load_strictly(net, load_weights(file)[0], str(file))
    task = upsampler.SECOND
    _train_upsampler(
        "second_upsampler",
        net.to(memory_format=torch.channels_last),
        task,
        loop_config,
        output,
        seed,
        device,
        from_size=task.cells,
    )
    second = load_model(output).upsampler.second
    _keep(output / "second_upsampler-measure.json", measure_upsampler(second, 8, seed=0, size=task.size))


def _train_upsampler(
    name: str,
    net: UpsamplerNet,
    task: upsampler.UpsamplerTask,
    loop_config: LoopConfig,
    output: Path,
    seed: int,
    device: torch.device,
    **more: int,
) -> None:
    training = upsampler.UpsamplerTraining(net, BATCHES[name], seed, task).to(device, torch.bfloat16)
    averaged = _run(
        name,
        training,
        loop_config,
        output,
        lambda loop, path: save_upsampler_sheet(loop, net, training.images(-1, device), path),
    )
    config = {"net": params_to_dict(net.params), "diffusion": asdict(upsampler.DIFFUSION), "scale": upsampler.SCALE}
    _export(output / f"{name}.safetensors", averaged, "net.", config | more)
    write_index(output)


TRAINERS: dict[str, Callable[[Path, LoopConfig, int, torch.device], None]] = {
    "clip": train_clip,
    "prior": train_prior,
    "decoder": train_decoder,
    "upsampler": train_upsampler,
    "second_upsampler": train_second_upsampler,
}


def check_clip(output: Path, count: int = 512) -> None:
    """Measure the trained CLIP once, keep the figures in `clip-gate.json`, and refuse one that binds badly.

    The linear heads are those that it was trained with or, where they are gone, fitted anew to its embeddings.

    Raises:
        CheckpointError: CLIP is not trained yet, or a figure of the trained pairs lies under the gate.
    """
    write_index(output)
    clip = read_clip(output, FAMILY).adapter
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


def _run(
    name: str,
    training: nn.Module,
    loop_config: LoopConfig,
    output: Path,
    save_sheet: Callable[[Loop, Path], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Train; with `save_sheet`, a sheet of samples stands beside each checkpoint."""
    loop = Loop(name, training, loop_config, output)
    loop.run(training.loss, None if save_sheet is None else lambda: save_sheet(loop, output / f"{name}-sheet.png"))
    return loop.averaged()


def _batches(
    output: Path,
    device: torch.device,
    batch: int,
    seed: int,
    *,
    pair_fraction: float,
    empty_captions: float,
    unnamed: float,
) -> WorldBatches:
    adapter = read_clip(output, FAMILY).adapter
    adapter.model.to(device)
    return WorldBatches(adapter, batch, seed, pair_fraction, empty_captions, unnamed)


def _keep(path: Path, figures: dict[str, Any]) -> None:
    print(f"{path.name}: {json.dumps(figures)}", flush=True)
    write_whole(path, (json.dumps(figures, indent=2) + "\n").encode())


def _fast_attention(device: str) -> AbstractContextManager[Any]:
    # On a CPU the explicit product has a much faster backward than the fused kernel.
    return sdpa_kernel([SDPBackend.MATH] if device == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])


def _export(path: Path, tensors: dict[str, torch.Tensor], prefix: str, config: dict[str, Any]) -> None:
    halves = {name.removeprefix(prefix): t.half() for name, t in tensors.items() if name.startswith(prefix)}
    save_weights(path, halves, config)


def _announce(stage: str, loop_config: LoopConfig, seed: int, device: str) -> None:
    settings = {**asdict(loop_config), "batch": BATCHES[stage], "seed": seed, "device": device}
    print(f"Training {stage}: {json.dumps(settings)}", flush=True)
