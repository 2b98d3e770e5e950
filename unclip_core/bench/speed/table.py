"""`unclip bench speed`: ours beside diffusers, in alternating fresh processes on one model folder."""

import json
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ...output import say
from ...weights.choices import AUTO
from ...weights.devices import choose_device, describe_device
from ..parity.oracle import check_installed
from ..parity.runs import LARGE
from . import kandinsky
from .bars import Bar, save_bars
from .efficiency import efficiency, efficiency_text
from .profiles import profile_text
from .runs import PLAIN, PROGRAMS, Run, all_runs, figure, of_first_round, over, per_image
from .sizes import model_folder

STEPS: dict[str, dict[str, Sequence[int]]] = {
    "karlo": {"small": (10, 10, 4), "full": (25, 25, 7)},
    "kandinsky22": {"small": (10, 10), "full": (25, 50)},
}
"""Steps of each stage by family and size."""
NAMES = {"karlo": "Karlo", "kandinsky22": "Kandinsky 2.2"}


def bench_speed(
    size: str = "small",
    dtypes: Sequence[str] = ("fp32", "bf16"),
    batches: Sequence[int] = (1, 4),
    rounds: int = 3,
    folder: str | None = None,
    as_json: bool = False,
    plot: str | None = None,
    steps: Sequence[int] | None = None,
    device: str = AUTO,
    family: str = "karlo",
    offload: bool = False,
    profile: bool = False,
    plain: bool = False,
) -> dict[str, Any]:
    """Measure both programs pair by pair, print the ratios and return all figures.

    Args:
        size: "small" (half the widths) or "full".
        dtypes: of weights and nets, "fp32", "bf16" or "fp16".
        batches: images drawn together; all figures but `batch_<n>` are of the first.
        rounds: pairs of processes for each dtype and batch, which take turns in going first. On a device each draws all
            batches, one size after the other.
        folder: where the random models are written and left; None for a temporary folder.
        as_json: print JSON in place of text.
        plot: a PNG file for an image of the ratios.
        steps: of prior, decoder and, of Karlo, super-resolution; None for the size's own.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
        family: "karlo" or "kandinsky22".
        offload: the models wait in main memory and are on the device while they run, as ComfyUI has them where room is
            short, and diffusers by `enable_model_cpu_offload`; else all stay on the device.
        profile: also run a batch of each program under torch's profiler (of the larger ones ours alone), and time our
            stages.
        plain: also measure ours by torch's own ways on a GPU, as the program "plain".

    Returns:
        `ratios.<dtype>`: `load`, `first`, `seconds_per_image` (diffusers' over ours: above 1 ours is faster),
        `peak_memory` (ours over diffusers'), `peak_device_memory` (the same of the device's, unless that is a CPU),
        `batch_<n>` (diffusers' seconds per image over ours at that batch), `batch_<n>_over_one` (ours per image over
        ours at batch 1) and, if asked for, `plain` and `plain_batch_<n>` (plain seconds per image over ours); those
        with `cpu_` before them count a CPU's work in place of the time that passes. Under `range`
        their least and greatest by pair. `difference.<dtype>`: mean difference of the images (0..1). `medians`: the
        medians themselves. `efficiency.<dtype>`: FLOP of an image, the device's matrix rate, and by
        batch what each program makes of it, see `efficiency`. `profiles.<dtype>`, if asked for: by batch and program
        where the time goes, see `profiles.profiled`. `stages.<dtype>`, if asked for: by batch and program the seconds
        of each stage of a batch, of Karlo's.

    Raises:
        MissingOracle: diffusers is not installed.
        ValueError: this machine has no such device, or the family another number of stages, a CPU is to be offloaded
            from, or a number is out of range.
        FailedProcess: a process failed; the message ends with what it said.
    """
    if min(rounds, *batches, *(steps or [1])) < 1:
        raise ValueError("--rounds, --batches and --stage-steps must be 1 or more.")
    place_of_nets = choose_device(device)
    if offload and place_of_nets.type == "cpu":
        raise ValueError("--offload moves models between main memory and a device: name a --device other than the CPU.")
    check_installed()
    steps = list(_steps(family, size, steps))
    figures: dict[str, Any] = {
        "family": family,
        "size": size,
        "steps": steps,
        "rounds": rounds,
        "torch": torch.__version__,
        "device": describe_device(place_of_nets),
        "offload": offload,
        "ratios": {},
        "range": {},
        "difference": {},
        "medians": {},
        "efficiency": {},
        "profiles": {},
        "stages": {},
    }
    with ExitStack() as cleanup:
        place = Path(folder or cleanup.enter_context(tempfile.TemporaryDirectory()))
        for dtype in dtypes:
            job = _job(family, place, size, dtype) | {"steps": steps, "device": str(place_of_nets)}
            job |= {"offload": offload, "profile": profile, "stages": profile}
            runs = all_runs(job, (*PROGRAMS, PLAIN) if plain else PROGRAMS, batches, rounds, place)
            _sum_up(figures, dtype, runs)
            figures["efficiency"][dtype] = efficiency(runs)
            figures["profiles"][dtype] = of_first_round(runs, "profile")
            figures["stages"][dtype] = of_first_round(runs, "stages")
    say(json.dumps(figures, indent=2) if as_json else _text(figures))
    if plot:
        _plot(figures, plot)
    return figures


def _steps(family: str, size: str, steps: Sequence[int] | None) -> Sequence[int]:
    own = STEPS[family][size]
    if steps is not None and len(steps) != len(own):
        raise ValueError(f"{NAMES[family]} has {len(own)} stages to be given steps, got {len(steps)}.")
    return own if steps is None else steps


def _job(family: str, place: Path, size: str, dtype: str) -> dict[str, Any]:
    """What a process is told of the model, which is written if it is not there yet."""
    job: dict[str, Any] = {"family": family, "dtype": dtype}
    if family == "kandinsky22":
        return job | {"folder": str(kandinsky.model_folder(place, size, dtype)), "side": kandinsky.SIDES[size]}
    return job | {"folder": str(model_folder(place, size, dtype))}


def _sum_up(figures: dict[str, Any], dtype: str, runs: dict[int, list[Run]]) -> None:
    first, *others = runs
    pairs = {
        "load": [over(run, "load") for run in runs[first]],
        "first": [over(run, "first") for run in runs[first]],
        "seconds_per_image": [over(run, "per_image") for run in runs[first]],
        "cpu_seconds_per_image": [over(run, "cpu_per_image") for run in runs[first]],
        "peak_memory": [1 / over(run, "peak_memory") for run in runs[first]],
    }
    if runs[first][0]["ours"].get("peak_device_memory") is not None:
        pairs["peak_device_memory"] = [1 / over(run, "peak_device_memory") for run in runs[first]]
    for batch in others:
        for clock in ("", "cpu_"):
            key = f"{clock}per_image"
            pairs[f"{clock}batch_{batch}"] = [over(run, key) for run in runs[batch]]
            pairs[f"{clock}batch_{batch}_over_one"] = [
                figure(large["ours"], key) / figure(one["ours"], key)
                for large, one in zip(runs[batch], runs[first], strict=True)
            ]
    if PLAIN in runs[first][0]:
        pairs["plain"] = [over(run, "per_image", PLAIN) for run in runs[first]]
        pairs |= {f"plain_batch_{batch}": [over(run, "per_image", PLAIN) for run in runs[batch]] for batch in others}
    figures["ratios"][dtype] = {name: statistics.median(values) for name, values in pairs.items()}
    figures["range"][dtype] = {name: [min(values), max(values)] for name, values in pairs.items()}
    figures["difference"][dtype] = max(
        float((run["ours"]["image"] - run["diffusers"]["image"]).abs().mean()) for run in runs[first]
    )
    figures["medians"][dtype] = {
        program: {
            key: statistics.median(figure(run[program], key) for run in runs[first])
            for key in ("load", "first", "per_image", "cpu_per_image", "peak_memory")
        }
        for program in runs[first][0]
    }


def _text(figures: dict[str, Any]) -> str:
    lines = [
        f"{NAMES[figures['family']]}'s shape, size {figures['size']}, {'/'.join(map(str, figures['steps']))} steps, "
        f"{figures['rounds']} pairs of fresh processes on {figures['device']}, torch {figures['torch']}"
    ]
    for dtype, ratios in figures["ratios"].items():
        lines.append(
            f"{dtype}: images differ by {figures['difference'][dtype]:.1e} on average (fp32 may by {LARGE:.0e})"
        )
        for name, value in ratios.items():
            low, high = figures["range"][dtype][name]
            lines.append(f"  {name:22} {value:6.2f}  ({low:.2f}..{high:.2f})  {_meaning(name)}")
        for program, row in figures["medians"][dtype].items():
            lines.append(
                f"  {program}: load {row['load']:.2f} s, first {row['first']:.2f} s, then "
                f"{per_image(row)} an image, peak {row['peak_memory']:.2f} GiB"
            )
        lines += efficiency_text(figures["efficiency"][dtype])
        for batch, programs in figures["profiles"][dtype].items():
            for program, found in programs.items():
                lines.append(f"  profile of batch {batch}, {program}, {'/'.join(map(str, found['steps']))} steps:")
                lines += profile_text(found)
        for batch, programs in figures["stages"][dtype].items():
            for program, found in programs.items():
                laps = ", ".join(f"{stage} {seconds:.3g} s" for stage, seconds in found.items())
                lines.append(f"  stages of batch {batch}, {program}: {laps}")
    return "\n".join(lines)


def _meaning(name: str) -> str:
    if name.endswith("_memory"):
        return "ours / diffusers: less than 1 is lighter"
    if name.endswith("_over_one"):
        return "ours per image / ours at batch 1"
    if name.startswith(PLAIN):
        return "ours by torch's own ways / ours: more than 1 is what the others bring"
    return "diffusers / ours: more than 1 is faster"


def _plot(figures: dict[str, Any], path: str) -> None:
    rows = [
        Bar(f"{dtype} {name}", figures["ratios"][dtype][name], *figures["range"][dtype][name])
        for dtype in figures["ratios"]
        for name in figures["ratios"][dtype]
        if not name.endswith("_over_one")
    ]
    save_bars(rows, f"size {figures['size']}: time diffusers / ours, memory ours / diffusers", path)
