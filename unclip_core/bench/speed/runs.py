"""The fresh processes of `unclip bench speed`: who is asked for what, in which order, and what each told."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...fresh_process import ask
from ...nets.memory_formats import PLAIN_VARIABLE
from ...output import say

PROGRAMS = ("diffusers", "ours")
PLAIN = "plain"
"""Ours by torch's own ways, see `memory_formats.PLAIN_VARIABLE`."""
WARM = {"diffusers": 1}
"""Batches that a device draws before those that count; ours records the steps of its last net in the second."""

Run = dict[str, dict[str, Any]]  # figures by program


def all_runs(
    job: dict[str, Any], programs: Sequence[str], batches: Sequence[int], rounds: int, scratch: Path
) -> dict[int, list[Run]]:
    """By batch the figures of each round.

    On a CPU each batch has processes of its own, whose peak of memory is its own. A device tells the peak of a batch,
    and a process draws all of them: to load a large model takes longer than to draw with it.
    """
    groups = [list(batches)] if job["device"] != "cpu" else [[batch] for batch in batches]
    runs: dict[int, list[Run]] = {batch: [] for batch in batches}
    for group in groups:
        asked = job | {"batch": group[0], "further": group[1:], "count": group[0] == batches[0]}
        for number in range(rounds):
            pair = _pair(asked if number == 0 else _timed(asked), programs, scratch, number % 2 == 1)
            for batch in group:
                runs[batch].append(pair[batch])
    return runs


def _timed(job: dict[str, Any]) -> dict[str, Any]:
    """The job of a later round, for times and memory alone."""
    return job | {"count": False, "profile": False, "stages": False}


def of_first_round(runs: dict[int, list[Run]], key: str) -> dict[str, Any]:
    """What was found once, by batch and program."""
    found = {
        str(batch): {program: figures.pop(key) for program, figures in first.items() if figures.get(key)}
        for batch, (first, *_) in runs.items()
    }
    return {batch: programs for batch, programs in found.items() if programs}


def _pair(job: dict[str, Any], programs: Sequence[str], scratch: Path, turned: bool) -> dict[int, Run]:
    """By batch the figures of each program, the first of which have an "image"."""
    run: dict[int, Run] = {batch: {} for batch in (job["batch"], *job["further"])}
    for program in reversed(programs) if turned else programs:
        images = scratch / f"{program}.pt"
        figures = _process({**job, **_own(job, program), "program": program, "save_to": str(images)})
        further = figures.pop("further", {})
        figures["image"] = torch.load(images, weights_only=True)
        images.unlink()
        for batch in run:
            run[batch][program] = found = further.get(str(batch), figures)
            memory = "" if found.get("peak_device_memory") is None else f" and {found['peak_device_memory']:.2f}"
            say(
                f"{job['dtype']} batch {batch} {program}: "
                + ", ".join(f"{key} {found[key]:.2f}" for key in ("load", "first", "peak_memory"))
                + f"{memory}, per image {per_image(found)}",
                to_stderr=True,
            )
    return run


def _own(job: dict[str, Any], program: str) -> dict[str, Any]:
    """What one program alone is asked for."""
    warm = 1 if job["device"] == "cpu" else WARM.get(program, 2)
    return {
        # FLOP are counted in torch's own operations, which diffusers keeps to; the rate belongs to the device.
        "count": job["count"] and program == "diffusers",
        "rate": job["count"] and program == "ours",
        "profile": job["profile"] and program != PLAIN,
        "profile_further": program == "ours",
        "stages": job["stages"] and program != "diffusers",
        "warm": warm,
        "images": warm + (1 if job["device"] == "cpu" else 2),
    }


def _process(job: dict[str, Any]) -> dict[str, Any]:
    environment = {PLAIN_VARIABLE: "1"} if job["program"] == PLAIN else {}
    found: dict[str, Any] = ask(job["program"], ["-m", f"{__package__}.worker", json.dumps(job)], environment)
    return found


def per_image(figures: dict[str, Any]) -> str:
    """Seconds an image, in words."""
    return f"{figure(figures, 'per_image'):.2f} s ({figure(figures, 'cpu_per_image'):.2f} s of a CPU)"


def over(run: Run, key: str, program: str = "diffusers") -> float:
    """That program's figure over ours."""
    return figure(run[program], key) / figure(run["ours"], key)


def figure(figures: dict[str, Any], key: str) -> float:
    """A figure of a run, the median where there are several."""
    found = figures[key]
    return statistics.median(found) if isinstance(found, list) else found
