"""The run on Ray: rows in batches to a pool of workers that write what they make, and a driver that counts.

Nothing but counts comes back to the driver, so that its memory does not grow with the table: 16 bytes a row for the
ids, which have to be distinct.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...unclip_core.weights.choices import AUTO
from .engine import Pool, batches, connected
from .paths import absolute, absolute_model
from .results import DIGEST, Folder, Output, Result
from .rows import Row
from .sources import digests_of, list_collection, read_table, rows_left
from .tasks import TABLE_TASKS, TASKS, Setup, Task, check_copies, make_task, run_batch, workflow_digest

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

MakeTask = Callable[[Setup], Task]

MOST_BATCHES = 4
"""Of a Ray task. A task costs Ray some 15 ms, and a killed worker loses what it has not written of one."""

TASKS_A_WORKER = 64
"""At the least, where there are so many batches: enough to see how far a run is, and for workers to end together."""


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        setup: the task and its model; `data` is filled in by the run where the task reads images.
        data: a table, or a collection of images.
        output: where results go.
        batch: rows that a worker makes together.
        workers: the fewest and the most workers.
        gpus: of each worker; 0 works on the CPU.
        address: of a Ray cluster; None starts Ray on this machine and stops it afterwards.
        seed: mixed into every row's own.
        count: images a row.
        make_task: what a worker starts with.
    """

    setup: Setup
    data: str
    output: Output
    batch: int = 16
    workers: tuple[int, int] = (1, 1)
    gpus: float = 0.0
    address: str | None = None
    seed: int = 0
    count: int = 1
    make_task: MakeTask = field(default=make_task)

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, value in {"batch": self.batch, "count": self.count}.items():
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value}")
        Pool(self.workers, self.gpus, self.address)

    @property
    def pool(self) -> Pool:
        """The workers."""
        return Pool(self.workers, self.gpus, self.address)

    def rows_a_task(self, rows: int) -> int:
        """How many of so many rows a worker takes at a time: a batch, or several of a long table."""
        batches = rows // (self.batch * self.workers[1] * TASKS_A_WORKER)
        return self.batch * min(max(batches, 1), MOST_BATCHES)

    def anywhere(self) -> "Job":
        """The job with all paths absolute: workers elsewhere have another current folder."""
        setup = replace(
            self.setup,
            task=self.setup.task if self.setup.task in TASKS else absolute(self.setup.task),
            model=absolute_model(self.setup.model),
            data=None if self.setup.data is None else absolute(self.setup.data),
            folder=absolute(self.setup.folder),
        )
        output = replace(self.output, place=absolute(self.output.place))
        return replace(self, setup=setup, data=absolute(self.data), output=output)

    def with_digest(self) -> "Job":
        """The job with the digest of its workflow as it is now; a named task's job as it is.

        Raises:
            InvalidWorkflow: the file cannot be read, or holds no workflow.
        """
        if self.setup.task in TASKS:
            return self
        from ..headless.workflow_file import read_workflow

        digest = workflow_digest(read_workflow(Path(self.setup.task)))
        return replace(self, setup=replace(self.setup, workflow=digest))

    @property
    def description(self) -> dict[str, Any]:
        """What has to be the same for a run to go on.

        The options that change an image, and of a workflow the digest of its nodes (`with_digest`). Models and other
        files that a workflow names stand there by their names: their content is not compared.
        """
        task, model = self.setup.task, self.setup.model
        return {
            "task": task, "model": model, "data": self.data, "seed": self.seed, "count": self.count,
            "candidates": self.setup.candidates, "files": self.output.files, "shards": self.output.shards,
            "dtype": self._dtype, "workflow": self.setup.workflow,
        }  # fmt: skip

    @property
    def _dtype(self) -> str:
        """The dtype of the nets; "auto" is fp32 on a CPU, and stays "auto" on GPUs, which the driver may not have."""
        return "fp32" if self.setup.dtype == AUTO and self.setup.device == "cpu" else self.setup.dtype


@dataclass(frozen=True)
class Counts:
    """How far a run is.

    Attributes:
        total: rows of the table.
        before: that were done by earlier runs.
        made: that this run has made.
        failed: that it could not make.
        rate: rows a second, since the first batch was done; 0 while that is not known.
        gone: rows that the output holds of earlier runs and that are no longer in the table.
    """

    total: int
    before: int
    made: int = 0
    failed: int = 0
    rate: float = 0.0
    gone: int = 0

    @property
    def left(self) -> int:
        """Rows that are still to be tried."""
        return self.total - self.before - self.made - self.failed


def run(job: Job, on_progress: Callable[[Counts], None]) -> Counts:
    """Make all rows that are not done yet, and return the counts.

    Raises:
        ValueError: Ray is missing, the data or the workflow cannot be read, two rows share an id, or the output is
            another run's.
        OSError: the output cannot be written.
    """
    job = job.with_digest()
    folder = job.output.open()
    with _alone(job.output), connected(job.pool):
        folder.check(job.description)
        is_table = job.setup.task in TABLE_TASKS or job.setup.task not in TASKS
        source = partial(read_table if is_table else list_collection, job.data)
        done = folder.done()
        ids = _distinct_ids(source(), job)
        folder.begin(job.description)  # not before: a run whose data cannot be used leaves the folder free
        gone = len(done) - int(np.isin(done, ids).sum())
        counts = Counts(total=len(ids), before=int(np.isin(ids, done).sum()), gone=gone)
        on_progress(counts)
        if counts.left:
            counts = _work(job.anywhere(), source(), done, counts, on_progress)
        return _checked(folder, len(done), counts)


def _work(
    job: Job, source: "Dataset", done: NDArray[np.bytes_], counts: Counts, on_progress: Callable[[Counts], None]
) -> Counts:
    import ray
    from ray.data import ActorPoolStrategy

    share = job.rows_a_task(counts.left)
    made = source.repartition(target_num_rows_per_block=share).map_batches(
        Worker,
        fn_constructor_args=(job, [ray.put(done)]),
        batch_format="pyarrow",
        batch_size=share,
        num_cpus=1,
        num_gpus=job.gpus or None,
        compute=ActorPoolStrategy(min_size=job.workers[0], max_size=job.workers[1]),
    )
    first: tuple[float, int] | None = None
    for batch in batches(made):
        if fault := "".join(batch["fault"]):
            raise OSError(fault)
        good, bad = counts.made + int(batch["made"].sum()), counts.failed + int(batch["failed"].sum())
        first = first or (time.monotonic(), good + bad)
        seconds = time.monotonic() - first[0]
        rate = (good + bad - first[1]) / seconds if good + bad > first[1] and seconds else 0.0
        counts = replace(counts, made=good, failed=bad, rate=rate)
        on_progress(counts)
    return counts


class Worker:
    """An actor: loads the task once, makes batches and writes them.

    Args:
        job: what is run.
        done: a reference to the sorted digests of the ids that are done, in a list so that Ray hands it on as it is.
    """

    def __init__(self, job: Job, done: list[Any]) -> None:
        import ray

        self._job, self._done, self._fault = job, ray.get(done[0]), ""
        with self._noted():
            self._task, self._folder = job.make_task(job.setup), job.output.open()

    def __call__(self, table: "pa.Table") -> dict[str, NDArray[Any]]:
        """Make and write what is left of some rows of the table.

        Returns:
            "made" and "failed", numbers of rows; "fault": why this machine cannot go on, or "".
        """
        made = failed = 0
        with self._noted():
            for results in self._results(table):
                self._folder.write(results)
                bad = sum(result.error is not None for result in results)
                made, failed = made + len(results) - bad, failed + bad
        return {"made": np.array([made]), "failed": np.array([failed]), "fault": np.array([self._fault])}

    def _results(self, table: "pa.Table") -> Iterator[list[Result]]:
        job = self._job
        rows = [] if self._fault else rows_left(table, job.seed, job.count, self._done)
        for first in range(0, len(rows), job.batch):
            yield run_batch(self._task, rows[first : first + job.batch])

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Keep what goes wrong as text: errors that Ray carries to the driver are no longer what was raised."""
        try:
            yield
        except Exception as error:  # no row's fault, or `run_batch` would have kept it
            self._fault = str(error) or type(error).__name__


def _distinct_ids(source: "Dataset", job: Job) -> NDArray[np.bytes_]:
    """Read the data once and return the digests of its rows' ids, sorted.

    Raises:
        ValueError: there is no row, a file is no table, two rows have the same id, or a row's copies would be equal.
        OSError: the files cannot be read.
    """
    tables, check = batches(source, "pyarrow"), _check(job)
    ids = np.sort(np.concatenate([np.empty(0, DIGEST), *(digests_of(table, job.count, check) for table in tables)]))
    if not len(ids):
        raise ValueError(f"'{job.data}' has no row in which anything stands.")
    if doubled := int((ids[1:] == ids[:-1]).sum()):
        raise ValueError(
            f"{doubled:,} of {len(ids):,} rows of '{job.data}' have the id of another one. Give each row "
            "an id of its own in a column 'id'; without it, rows that say the same are the same row (--count makes "
            "several images of each)."
        )
    return ids


def _check(job: Job) -> Callable[[Row], None]:
    """What raises ValueError for a row that cannot be made as often as it is asked for."""
    if job.setup.task in TASKS:
        return lambda row: None  # whose rows have a seed each
    from ..headless.prompt import parse
    from ..headless.workflow_file import read_workflow

    return partial(check_copies, parse(read_workflow(Path(job.setup.task)))[0], job.count)


def _checked(folder: Folder, held: int, counts: Counts) -> Counts:
    """Compare what was counted with what stands in the output, which held so many finished rows at the start.

    Raises:
        OSError: they differ.
    """
    done, failed = folder.count()
    if (done, failed) != (held + counts.made, counts.failed):
        raise OSError(
            f"The output holds {done:,} rows and {failed:,} failed ones, but there were {held:,} rows, {counts.made:,} "
            f"were made and {counts.failed:,} failed: it was changed while this ran."
        )
    return counts


@contextmanager
def _alone(output: Output) -> Iterator[None]:
    """Keep a second run off a folder of this machine."""
    if "://" in output.place:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(f"{output.place.rstrip('/')}/.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"Another run is writing into '{output.place}': wait for it, or stop it.") from None
    try:
        yield
    finally:
        lock.release()
