"""Which of two ways is the faster on this processor: measured once, kept in a file, and the same from then on.

A measurement is a list of sizes at which the other way won. It decides for all sizes: the other way is taken where one
of these is no larger in any respect. It is made by the first process that needs it, and all later ones read it: whether
a layer goes one way or the other changes an image by its rounding, so this machine has to choose alike in each process.
Where nothing can be kept, nothing is measured, and the constants stand that one processor of 2024 gave.
"""

import hashlib
import json
import logging
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..parsing import MalformedInput, read_json

log = logging.getLogger("unclip")
VARIABLE = "UNCLIP_MEASURE_CPU"
"""The environment variable that, when it is "0", leaves all measuring out: the constants stand."""

BUDGET = 0.3
"""Seconds that one measurement takes at most, or a little more; probes that are not done by then are left out."""
MARGIN = 0.95  # a way wins that takes at most so much of the other's time
REPEATS = 2
ISA_VARIABLES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS")
PROCESSOR_LINES = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU part", "Features")

Size = tuple[float, ...]
_LOCK = threading.RLock()


class Probe(NamedTuple):
    """Two ways to do the same work of a size."""

    size: Size
    plain: Callable[[], object]
    other: Callable[[], object]


def is_faster(subject: str, size: Size, probes: Callable[[], Sequence[Probe]]) -> bool | None:
    """Whether the other way is the faster one at a size, by this machine's measurement.

    Args:
        subject: what is measured, a name for files.
        size: the larger in each respect, the better for the other way.
        probes: makes the probes, with sizes of the same length; called where nothing has been measured yet.

    Returns:
        None where nothing is measured: the caller's constants decide.
    """
    if os.environ.get(VARIABLE) == "0":
        return None
    won = _winning(subject, torch.get_num_threads(), probes)
    return None if won is None else any(_reaches(size, least) for least in won)


def winning_sizes(probes: Sequence[Probe], clock: Callable[[], float] | None = None) -> list[Size] | None:
    """Measure: the sizes from which on the other way wins every probe.

    Where `BUDGET` does not suffice for all, those that are done count; None where the other way won none of them.

    Each way runs once to warm up and `REPEATS` times by turns; its fastest run counts. A single thread is timed by what
    it computes, whatever else the machine does; several are by the clock on the wall, as they may wait for each other.
    """
    if clock is None:
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    end = clock() + BUDGET
    won: list[Size] = []
    lost: list[Size] = []
    for probe in probes:
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(1 + REPEATS):
            for way, taken in zip((probe.plain, probe.other), seconds, strict=True):
                start = clock()
                way()
                if turn:
                    taken.append(clock() - start)
                if clock() > end:
                    return _from_on(won, lost) or None
        plain, other = map(min, seconds)
        (won if other <= MARGIN * plain else lost).append(probe.size)
    return _from_on(won, lost)


def _from_on(won: list[Size], lost: list[Size]) -> list[Size]:
    return [size for size in won if not any(_reaches(larger, size) for larger in lost)]


def drawn(*shape: int) -> torch.Tensor:
    """Numbers to measure with; the process's own random numbers stay as they are."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def cache_folder() -> Path:
    """Where measurements are kept: `unclip` in the user's folder for caches."""
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "unclip" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "unclip"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "unclip"


@cache
def machine() -> dict[str, str]:
    """What the measurements of a process depend on, but for its threads."""
    said = Path("/proc/cpuinfo")
    lines = said.read_text(errors="replace").split("\n\n")[0].splitlines() if said.is_file() else []
    described = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    found = {name: described[name] for name in PROCESSOR_LINES if name in described}
    found |= {name: os.environ[name] for name in ISA_VARIABLES if name in os.environ}
    found["processor"] = f"{platform.machine()} {platform.processor()}"
    return found | {"capability": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__}


@cache
def _winning(subject: str, threads: int, probes: Callable[[], Sequence[Probe]]) -> list[Size] | None:
    of = machine() | {"threads": str(threads)}
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
    with _LOCK:
        try:
            path = cache_folder() / f"{subject}-{name}.json"
            if not (path.is_file() and _read(path) is not _DAMAGED):
                _measure_into(path, of, probes)
            kept = _read(path)
        except (OSError, RuntimeError) as error:  # the latter where the user has no home
            log.warning("Nothing is measured on this processor, as it could not be kept: %s", error)
            return None
    return None if kept is _DAMAGED else kept


_DAMAGED: Any = object()


def _read(path: Path) -> Any:
    """The sizes that a file holds; `_DAMAGED` where it holds something else."""
    try:
        won = read_json(path)["winning"]
    except (MalformedInput, KeyError, TypeError):
        return _DAMAGED
    if won is None:
        return None
    if not isinstance(won, list) or not all(isinstance(size, list) for size in won):
        return _DAMAGED
    return [tuple(map(float, size)) for size in won] if _are_numbers(won) else _DAMAGED


def _are_numbers(sizes: list[list[Any]]) -> bool:
    return all(isinstance(number, int | float) for size in sizes for number in size)


@torch.no_grad()
def _measure_into(path: Path, of: dict[str, str], probes: Callable[[], Sequence[Probe]]) -> None:
    """Measure, and write it where no other process has been faster; a damaged file is replaced."""
    damaged = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        aside.touch()  # before it is measured: where nothing can be kept, nothing is
        with torch.autocast("cpu", enabled=False):
            won = winning_sizes(probes())
        aside.write_text(json.dumps({"machine": of, "winning": won}, indent=1), encoding="utf-8")
        if damaged:
            os.replace(aside, path)
        else:
            _link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _link(aside: Path, path: Path) -> None:
    """Give `aside` the name `path` unless that is there: the first process's measurement counts."""
    try:
        os.link(aside, path)
    except FileExistsError:
        return
    except OSError:  # a disk without links
        os.replace(aside, path)


def _reaches(size: Size, least: Size) -> bool:
    return all(a >= b for a, b in zip(size, least, strict=True))
