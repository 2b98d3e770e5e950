"""A whole batch: its journal, one worker a server, and the report of what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .downloads import remove_leftovers
from .journal import Journal
from .rows import Batch
from .scheduler import Result, Scheduler
from .server import ComfyServer
from .threads import DaemonThreads
from .worker import Worker

DEPTH = 2
"""Prompts in a server's queue at once: one runs, one waits, so that the server never idles."""

_LOOK = 0.05
"""Seconds between two looks whether the batch has ended."""

PATIENCE = 600.0
"""Seconds to wait for any server to come back before giving up."""


@dataclass
class BatchReport:
    """What came of a batch.

    Attributes:
        rows: how many there are.
        kept: those that an earlier run had done.
        results: row → result, of this run.
        missing: rows without a result, because the run was interrupted or no server could be used.
        unusable: server → why it took no further part.
        interrupted: whether the user stopped it.
        seconds: how long it took.
    """

    rows: int
    kept: int = 0
    results: dict[int, Result] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
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
        ended = {"interrupted": self.interrupted, "seconds": self.seconds, "unusable": self.unusable}
        return {**counts, **ended, "results": results}


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

    It may be called where an event loop runs already, as in a notebook: its own then runs in a thread.

    Args:
        batch: the rows.
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
    servers = list({server.url: server for server in servers}.values())
    folder, began, interrupted = Path(folder), time.monotonic(), False
    journal = Journal(folder, batch.digest)
    try:
        remove_leftovers(folder)
        left = [row.number for row in batch.rows if not _is_done(journal, folder, row.number)]
        scheduler = Scheduler(left, [server.url for server in servers], journal, on_result or (lambda result: None))
        workers = [Worker(server, scheduler, batch, folder, depth) for server in servers]
        try:
            _run(_work(servers, workers, scheduler, patience))
        except KeyboardInterrupt:
            interrupted = True
    finally:
        journal.close()
    report = BatchReport(len(batch.rows), len(batch.rows) - len(left), scheduler.results, interrupted=interrupted)
    report.missing = [row for row in left if row not in scheduler.results]
    report.unusable, report.seconds = scheduler.unusable, time.monotonic() - began
    return report


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end in an event loop of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as thread:  # one thread has one running loop, and the caller's has this one
        thread.submit(asyncio.run, work).result()


def _is_done(journal: Journal, folder: Path, row: int) -> bool:
    """Whether the row's files are all there still."""
    return row in journal.done and all((folder / name).is_file() for name in journal.done[row])


async def _work(
    servers: Sequence[ComfyServer], workers: Sequence[Worker], scheduler: Scheduler, patience: float
) -> None:
    """Run the workers until every row has its result or no server can be used. Raises what went wrong in one."""
    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    async with AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server)
        tasks = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            await _wait(tasks, scheduler, patience)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(tasks: Sequence[asyncio.Task[None]], scheduler: Scheduler, patience: float) -> None:
    while not scheduler.finished and scheduler.all_down_for() <= patience:
        ended, running = await asyncio.wait(tasks, timeout=_LOOK, return_when=asyncio.FIRST_EXCEPTION)
        for task in ended:
            task.result()
        if not running:
            return
