"""`unclip bench map`: what Ray costs, how it scales, and whether killed workers cost an image.

Every figure is of rows after the first task of every worker, so that starting Ray and reading the model, which a long
run pays once, is told apart ("start").
"""

import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...unclip_core.output import say
from .engine import Pool, connected
from .job import Counts, Job, run
from .results import Output, Result
from .rows import Row, make_rows
from .tasks import Setup, Task, make_task, run_batch

TASK = "text-to-image"
COLORS, SHAPES = ("red", "green", "blue", "yellow", "purple"), ("circle", "square", "triangle", "star")
WORKERS = 2
FAKE_SECONDS = 0.01

SCALING_LEAST, OVERHEAD_MOST, OVER_IDEAL_MOST = 1.7, 0.005, 0.1
"""What the figures have to be on idle cores: times as fast, seconds a row, share over ideal."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        rows: of the bundled model.
        fake_rows: of the worker that takes 10 ms a row.
        empty_rows: of the worker that does nothing.
        batch: rows made together.
        workers: of the runs that scale.
    """

    rows: int = 128
    fake_rows: int = 10_000
    empty_rows: int = 6_400
    batch: int = 16
    workers: int = WORKERS

    def __post_init__(self) -> None:
        """Check that there is something between the first batches and the last."""
        least = self.batch * (self.workers + 1)
        for name in ("rows", "fake_rows", "empty_rows"):
            if getattr(self, name) < least or min(self.batch, self.workers) < 1:
                raise ValueError(
                    f"With {self.workers} workers and batches of {self.batch}, {name} must be {least} or more, "
                    f"not {getattr(self, name)}."
                )


@dataclass
class Clock:
    """Times of a run; it is told of every batch.

    Attributes:
        warm: rows after which the time counts: the first task of every worker.
        start: seconds until these were done.
        rate: rows a second from then on.
    """

    warm: int
    start: float = 0.0
    rate: float = 0.0
    time: Callable[[], float] = time.monotonic
    _from: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        """Begin."""
        self._began = self.time()

    def __call__(self, counts: Counts) -> None:
        """Note how far the run is."""
        now, done = self.time(), counts.made + counts.failed
        if self._from is None and done >= self.warm:
            self._from, self.start = (now, done), now - self._began
        elif self._from is not None and done > self._from[1]:
            self.rate = (done - self._from[1]) / (now - self._from[0])


@dataclass(frozen=True)
class Sleeps:
    """A task that takes `seconds` a row and draws nothing."""

    seconds: float

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """See `Task`."""
        time.sleep(self.seconds * len(rows))
        return [Result(row.id, row.seed, row.values, image=b"an image") for row in rows]


def bench_map(sizes: Sizes, model: str | None = None, as_json: bool = False) -> dict[str, Any]:
    """Measure scaling, overhead and a long fake run; print and return the figures.

    Raises:
        ValueError, OSError: as of `job.run`.
    """
    with tempfile.TemporaryDirectory() as folder, connected(Pool((1, sizes.workers))):
        figures = {
            "cores": os.cpu_count(),
            "sizes": asdict(sizes),
            "scaling": _scaling(Path(folder), sizes, model),
            "overhead": _overhead(Path(folder), sizes),
            "fake": _fake(Path(folder), sizes),
        }
    say(json.dumps(figures, indent=2) if as_json else _told(figures))
    return figures


def _scaling(folder: Path, sizes: Sizes, model: str | None) -> dict[str, Any]:
    """Several workers beside this process alone, with the same batches of the model."""
    table, setup = write_prompts(folder / "prompts.jsonl", sizes.rows), Setup(TASK, model=model, threads=1)
    alone = _alone(setup, make_task, table, folder / "alone", sizes.batch)
    job = Job(setup, str(table), Output(str(folder / "scaling")), sizes.batch, (sizes.workers,) * 2)
    clock = _on_ray(job, sizes.rows)
    return {"one": alone.rate, "workers": clock.rate, "times": clock.rate / alone.rate, "start": clock.start}


def _overhead(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """One worker that does nothing, on Ray and without."""
    table, setup = write_prompts(folder / "empty.jsonl", sizes.empty_rows), Setup(TASK)
    task = partial(_sleeping, 0.0)
    alone = _alone(setup, task, table, folder / "empty-alone", sizes.batch)
    job = Job(setup, str(table), Output(str(folder / "empty")), sizes.batch, make_task=task)
    clock = _on_ray(job, sizes.empty_rows)
    return {"seconds_a_row": 1 / clock.rate - 1 / alone.rate, "start": clock.start}


def _fake(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """Workers that take 10 ms a row beside what would be ideal."""
    table = write_prompts(folder / "fake.jsonl", sizes.fake_rows)
    task, pool = partial(_sleeping, FAKE_SECONDS), (sizes.workers, sizes.workers)
    job = Job(Setup(TASK), str(table), Output(str(folder / "fake")), sizes.batch, pool, make_task=task)
    clock = _on_ray(job, sizes.fake_rows)
    ideal = sizes.workers / FAKE_SECONDS
    return {"rate": clock.rate, "ideal": ideal, "over_ideal": ideal / clock.rate - 1, "start": clock.start}


def _sleeping(seconds: float, setup: Setup) -> Task:
    return Sleeps(seconds)


def _on_ray(job: Job, rows: int) -> Clock:
    clock = Clock(warm=job.rows_a_task(rows) * job.workers[1])
    if failed := run(job, clock).failed:
        raise ValueError(
            f"{failed} rows failed: the column 'error' of failed-*.parquet in '{job.output.place}' says why."
        )
    return clock


def _alone(setup: Setup, task: Any, table: Path, place: Path, batch: int) -> Clock:
    """The same rows in the same batches, written in the same way, by this process."""
    made, folder, clock = task(setup), Output(str(place)).open(), Clock(warm=batch)
    rows = _rows(table)
    for first in range(0, len(rows), batch):
        folder.write(run_batch(made, rows[first : first + batch]))
        clock(Counts(len(rows), 0, made=min(len(rows), first + batch)))
    return clock


def _rows(table: Path) -> list[Row]:
    return list(make_rows(map(json.loads, table.read_text().splitlines())))


def write_prompts(path: Path, count: int) -> Path:
    """Write a table of so many prompts, each with an id, and return its path."""
    prompts = (f"a {COLORS[n % len(COLORS)]} {SHAPES[n // len(COLORS) % len(SHAPES)]}" for n in range(count))
    path.write_text("".join(json.dumps({"id": str(n), "prompt": p}) + "\n" for n, p in enumerate(prompts)))
    return path


# ---- workers that are killed ----


def bench_kills(every: float, sizes: Sizes, model: str | None = None, as_json: bool = False) -> bool:
    """Kill a worker every so many seconds and compare all images with one process's; whether all are the same.

    Of the sizes the rows of the model, the batch and the workers count.

    A part is a batch: that process draws the rows of each together, as batches of another size round otherwise.

    Raises:
        ValueError, OSError: as of `job.run`.
    """
    with tempfile.TemporaryDirectory() as name, connected(Pool((1, sizes.workers))):
        folder = Path(name)
        table, setup = write_prompts(folder / "prompts.jsonl", sizes.rows), Setup(TASK, model=model, threads=1)
        (folder / "pids").mkdir()
        make = partial(_noted, folder / "pids")
        job = Job(setup, str(table), Output(str(folder / "killed")), sizes.batch, (sizes.workers,) * 2, make_task=make)
        began, progress = time.monotonic(), threading.Event()
        with _killing(folder / "pids", every, progress) as kills:
            counts = run(job, lambda counts: progress.set())
        seconds = time.monotonic() - began
        compared = _compared(_batches(folder / "killed"), _rows(table), make_task(setup))
    figures = {
        "rows": sizes.rows,
        "kills": len(kills),
        "made": counts.made,
        "failed": counts.failed,
        "seconds": seconds,
    }
    figures |= compared
    if as_json:
        say(json.dumps(figures, indent=2))
    else:
        say("\n".join(f"{name:32}{value}" for name, value in figures.items()))
    return bool(counts.made == sizes.rows == compared["same_ids"] and compared["largest_difference"] <= 1)


def _noted(pids: Path, setup: Setup) -> Task:
    """The worker's task, once its process is known by a file's name."""
    task = make_task(setup)
    (pids / str(os.getpid())).touch()
    return task


@contextmanager
def _killing(pids: Path, every: float, progress: threading.Event) -> Iterator[list[int]]:
    """Kill a process of those in a folder every so many seconds; the list grows by each.

    Before each there is a batch made, or else no run would end whose workers take longer than that to read the model.
    """
    killed: list[int] = []
    ended, chance = threading.Event(), random.Random(0)

    def kill() -> None:
        while not ended.wait(every):
            if not progress.is_set():
                continue
            progress.clear()
            alive = [int(path.name) for path in pids.iterdir() if int(path.name) not in killed]
            if alive:
                pid = chance.choice(sorted(alive))
                try:
                    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                except ProcessLookupError:  # it had ended by itself
                    (pids / str(pid)).unlink(missing_ok=True)
                else:
                    killed.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        ended.set()
        thread.join()


def _batches(folder: Path) -> list[dict[str, bytes]]:
    """The images of each part by the ids of their rows, in the order in which they were drawn together."""
    from pyarrow import parquet

    parts = [parquet.read_table(path, columns=["id", "image"]).to_pydict() for path in folder.glob("part-*.parquet")]
    return [dict(zip(part["id"], part["image"], strict=True)) for part in parts]


def _compared(batches: list[dict[str, bytes]], rows: Sequence[Row], task: Task) -> dict[str, Any]:
    """How far images differ from those that a task draws in the same batches, in levels of 0..255."""
    import io

    import numpy as np
    from PIL import Image

    def levels(data: bytes) -> Any:
        return np.asarray(Image.open(io.BytesIO(data))).astype(int)

    named, found = {row.id: row for row in rows}, {name: image for batch in batches for name, image in batch.items()}
    if twice := sum(map(len, batches)) - len(found):
        raise ValueError(f"{twice} rows were written twice.")
    drawn = [result for batch in batches for result in task([named[name] for name in batch])]
    pairs = [(found[result.id], result.image or b"") for result in drawn]
    far = [int(np.abs(levels(image) - levels(wanted)).max()) for image, wanted in pairs]
    return {
        "same_ids": len(pairs),
        "missing": len(named.keys() - found.keys()),
        "distinct_images": len(set(found.values())),
        "batches": len(batches),
        "equal_to_the_byte": sum(image == wanted for image, wanted in pairs),
        "largest_difference": max(far, default=0),
    }


def _told(figures: dict[str, Any]) -> str:
    scaling, overhead, fake, sizes = (figures[name] for name in ("scaling", "overhead", "fake", "sizes"))
    workers = sizes["workers"]
    return "\n".join(
        [
            f"{sizes['rows']} rows of the model, batches of {sizes['batch']}, {figures['cores']} cores:",
            f"  one process       {scaling['one']:.2f} rows/s, {1000 / scaling['one']:.0f} s a thousand images",
            f"  {workers} workers         {scaling['workers']:.2f} rows/s, {scaling['times']:.2f} times as fast "
            f"(two are to be {SCALING_LEAST} times as fast); {scaling['start']:.1f} s to their first batches",
            f"overhead a row      {1000 * overhead['seconds_a_row']:.2f} ms (at most {1000 * OVERHEAD_MOST:g})",
            f"{sizes['fake_rows']:,} rows of 10 ms  {fake['rate']:.1f} rows/s of {fake['ideal']:.0f}, "
            f"{fake['over_ideal']:.1%} over ideal (at most {OVER_IDEAL_MOST:.0%}); {fake['start']:.1f} s to the first",
        ]
    )
