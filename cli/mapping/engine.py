"""Ray itself: started or found, and shares of some work given to a pool of workers. Imported late."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...unclip_core.output import say

if TYPE_CHECKING:
    from ray.data import Dataset

HEAD_ROOM = 1  # logical CPUs for reading and naming, beside those of the workers

Handler = Callable[[Any], Any]
"""What a worker does with a share; both share and result are pickled."""


@dataclass(frozen=True)
class Pool:
    """The workers.

    Attributes:
        workers: the fewest and the most.
        gpus: of each worker; 0 works on the CPU.
        address: of a Ray cluster; None starts Ray on this machine and stops it afterwards.
    """

    workers: tuple[int, int] = (1, 1)
    gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        low, high = self.workers
        if low < 1:
            raise ValueError(f"workers must be 1 or more, not {low}")
        if high < low:
            raise ValueError(f"the most workers, {high}, are fewer than the fewest, {low}")

    @property
    def device(self) -> str:
        """The torch device of every worker."""
        return "cuda" if self.gpus > 0 else "cpu"


@contextmanager
def connected(pool: Pool) -> Iterator[None]:
    """Have a Ray: the one that this process is connected to, the cluster at the address, or one of our own for a while.

    What is printed meanwhile goes to stderr: Ray tells of killed workers on stdout, which is for results.

    Raises:
        ValueError: it is not installed or not there, or this machine has less than the workers need.
    """
    with redirect_stdout(sys.stderr), _connected(pool):
        yield


@contextmanager
def _connected(pool: Pool) -> Iterator[None]:
    import logging
    import os

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError('This runs on Ray, which is not installed: pip install "ray[data]>=2.48"') from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        _check_room(pool, ours=False)
        yield
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "address": pool.address}
    if pool.address is None:
        cpus = max(os.cpu_count() or 1, pool.workers[1] + HEAD_ROOM)
        settings |= {"num_cpus": cpus, "include_dashboard": False, "address": "local"}
    try:
        ray.init(**settings)
    except Exception as error:  # whose kinds differ from one version of Ray to the next
        where = "on this machine" if pool.address is None else f"at '{pool.address}'"
        raise ValueError(f"There is no Ray {where}: {first_line(error)}") from error
    try:
        _check_room(pool, ours=pool.address is None)
        yield
    finally:
        ray.shutdown()


def _check_room(pool: Pool, ours: bool) -> None:
    """Say it when Ray has less than the fewest workers need: it would wait without a word.

    Raises:
        ValueError: it is our own Ray, which does not grow.
    """
    import ray

    there, fewest = ray.cluster_resources(), pool.workers[0]
    for kind, each in (("CPU", 1.0), ("GPU", pool.gpus)):
        have, need = there.get(kind, 0.0), fewest * each
        if need <= have:
            continue
        said = f"{fewest} workers need {need:g} {kind}s, and Ray has {have:g}"
        if ours:
            raise ValueError(f"{said}: ask for fewer workers, or less of --gpus-per-worker.")
        say(f"{said}: they begin when the cluster has grown.", to_stderr=True)


def batches(dataset: "Dataset", batch_format: str = "numpy") -> Iterator[Any]:
    """What the workers say, as it comes: dictionaries of arrays, or with "pyarrow" tables.

    Raises:
        OSError: Ray gave up: workers cannot be started, or die again and again, or files cannot be read.
    """
    found = iter(dataset.iter_batches(batch_size=None, batch_format=batch_format, prefetch_batches=0))
    while True:
        try:
            batch = next(found, None)
        except Exception as error:  # whose kinds differ from one version of Ray to the next
            raise OSError(f"Ray gave up: {first_line(error)}") from error
        if batch is None:
            return
        yield batch


def first_line(error: Exception) -> str:
    """Return the sentence of an error; of what a task raised its own sentence, without Ray's trace of where it ran."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, Exception) else error
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def spread(pool: Pool, shares: Sequence[Any], make: Callable[[], Handler]) -> Iterator[tuple[int, Any]]:
    """Have workers do shares of some work, and yield (place among the shares, result) in the order in which they end.

    A share whose worker dies is done again by another: what a handler writes has to be the same each time.

    Args:
        pool: the workers.
        shares: what is to be done.
        make: called once in each worker; returns what does a share. It is pickled.

    Raises:
        ValueError: Ray is missing, or `make` or a handler raised; the message is theirs.
        OSError: Ray gave up.
    """
    with connected(pool):
        import ray
        from ray.data import ActorPoolStrategy

        done = (
            ray.data.range(len(shares))
            .repartition(target_num_rows_per_block=1)
            .map_batches(
                _Spread,
                fn_constructor_args=(make, [ray.put(list(shares))]),
                batch_format="numpy",
                batch_size=1,
                num_cpus=1,
                num_gpus=pool.gpus or None,
                compute=ActorPoolStrategy(min_size=pool.workers[0], max_size=pool.workers[1]),
            )
        )
        for batch in batches(done):
            for number, result, fault in zip(batch["number"], batch["result"], batch["fault"], strict=True):
                if fault:
                    raise ValueError(str(fault))
                yield int(number), result


class _Spread:
    """An actor of `spread`. What goes wrong it keeps as text: Ray carries errors over as something else."""

    def __init__(self, make: Callable[[], Handler], shares: list[Any]) -> None:
        import ray

        self._shares, self._fault = ray.get(shares[0]), ""
        try:
            self._handler = make()
        except Exception as error:
            self._fault = str(error) or type(error).__name__

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        number, result = int(batch["id"][0]), np.array([None], dtype=object)
        if not self._fault:
            try:
                result[0] = self._handler(self._shares[number])
            except Exception as error:
                self._fault = str(error) or type(error).__name__
        return {
            "number": np.array([number]),
            "result": result,
            "fault": np.array([self._fault], dtype=object),
        }
