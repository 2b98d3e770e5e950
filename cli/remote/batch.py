"""A whole batch: its journal, one worker a server, and the report of what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .journal import Journal
from .rows import Batch
from .scheduler import Result, Scheduler
from .server import ComfyServer
from .worker import Worker

DEPTH = 2
"""Prompts in a server's queue at once: one runs, one waits, so that the server never idles."""

PATIENCE = 600.0
"""Seconds to wait for any server to come back before giving up."""


@dataclass
class BatchReport:
    """What came of a batch.

    Attributes:
        rows: how many there are.
        kept: those that an earlier run had done.
        results: row → result, of this run.
        missing: rows without a result, because the run was interrupted or no server came back.
        interrupted: whether the user stopped it.
        seconds: how long it took.
    """

    rows: int
    kept: int = 0
    results: dict[int, Result] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def failed(self) -> list[Result]:
        """The rows that ended in an error, in order."""
        return [result for _, result in sorted(self.results.items()) if result.error]

    @property
    def exit_code(self) -> int:
        """0 if every row has its files, 1 if not, 130 if interrupted."""
        if self.interrupted:
            return 130
        return 1 if self.failed or self.missing else 0

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        results = [vars(result) for _, result in sorted(self.results.items())]
        counts = {"rows": self.rows, "kept": self.kept, "failed": len(self.failed), "missing": self.missing}
        return {**counts, "interrupted": self.interrupted, "seconds": self.seconds, "results": results}


def run_batch(
    batch: Batch,
    servers: Sequence[ComfyServer],
    folder: str | Path,
    *,
    depth: int = DEPTH,
    patience: float = PATIENCE,
    on_result: Callable[[Result], None] | None = None,
) -> BatchReport:
    """Queue every row that the journal in `folder` does not hold as done, and download what they save.

    Args:
        servers: at least one.
        folder: for the files and the journal; made if missing.
        depth: prompts in each server's queue at once, 1 or more.
        patience: seconds to wait while no server answers.
        on_result: told of every row that is done or has failed.

    Raises:
        ValueError: no server or a depth below 1; or the journal is another batch's, damaged, or in use.
        OSError: a file cannot be written; what is done is in the journal.
    """
    if not servers or depth < 1:
        raise ValueError("There must be a server, and room for one prompt at least in its queue.")
    folder, began = Path(folder), time.monotonic()
    journal = Journal(folder, batch.digest)
    try:
        left = [row.number for row in batch.rows if not _is_done(journal, folder, row.number)]
        scheduler = Scheduler(left, [server.url for server in servers], journal, on_result or (lambda result: None))
        workers = [Worker(server, scheduler, batch, folder, depth) for server in servers]
        interrupted = _work(workers, scheduler, patience)
    finally:
        journal.close()
    missing = [row for row in left if row not in scheduler.results]
    seconds = time.monotonic() - began
    return BatchReport(len(batch.rows), len(batch.rows) - len(left), scheduler.results, missing, interrupted, seconds)


def _is_done(journal: Journal, folder: Path, row: int) -> bool:
    """Whether the row's files are all there still."""
    return row in journal.done and all((folder / name).is_file() for name in journal.done[row])


def _work(workers: Sequence[Worker], scheduler: Scheduler, patience: float) -> bool:
    """Run the workers to the end; returns whether the user interrupted them. Raises what went wrong in one."""
    errors: list[BaseException] = []

    def body(worker: Worker) -> None:
        try:
            worker.run()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(worker,), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    interrupted = _wait(threads, scheduler, patience)
    if errors:
        raise errors[0]
    return interrupted


def _wait(threads: Sequence[threading.Thread], scheduler: Scheduler, patience: float) -> bool:
    try:
        while any(thread.is_alive() for thread in threads):
            if scheduler.stopped.wait(0.05):
                for thread in threads:
                    thread.join()
            elif scheduler.finished:
                return _dismiss(threads, scheduler)
            elif scheduler.all_down_for() > patience:
                scheduler.stopped.set()
    except KeyboardInterrupt:
        scheduler.stopped.set()
        for thread in threads:
            thread.join()
        return True
    return False


def _dismiss(threads: Sequence[threading.Thread], scheduler: Scheduler) -> bool:
    """Every row has its result: wake those who wait, and do not wait for one that hangs on a dead server."""
    scheduler.stopped.set()
    for thread in threads:
        thread.join(timeout=1)
    return False
