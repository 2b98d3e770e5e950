"""A whole batch: its journal, one worker a server, and the report of what came of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .crew import Crew
from .downloads import remove_leftovers
from .journal import Journal, Result
from .results_table import write_results
from .rows import Batch
from .scheduler import Scheduler
from .server import ComfyServer
from .tally import Share, Tally
from .threads import DaemonThreads
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
        missing: rows without a result, because the run was interrupted or no server could be used.
        unusable: server → why it took no further part.
        interrupted: whether the user stopped it.
        seconds: how long it took.
        servers: server → what it did in this run.
        table: the file that holds the results of all runs.
    """

    rows: int
    kept: int = 0
    results: dict[int, Result] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    seconds: float = 0.0
    servers: dict[str, Share] = field(default_factory=dict)
    table: Path | None = None

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
        servers = {
            url: {"rows": share.rows, "failed": share.failed, "rate": share.rate} for url, share in self.servers.items()
        }
        return {**counts, **ended, "results": results, "servers": servers, "table": str(self.table or "")}


def run_batch(
    batch: Batch,
    servers: Sequence[ComfyServer],
    folder: str | Path,
    *,
    depth: int = DEPTH,
    patience: float = PATIENCE,
    on_result: Callable[[Result], None] | None = None,
    roster: Callable[[], Sequence[ComfyServer]] | None = None,
) -> BatchReport:
    """Queue every row that the journal in `folder` does not hold as done, and download what they save.

    Beside the files stands a table of what came of every row (`write_results`), of this run and those before it.
    It may be called where an event loop runs already, as in a notebook: its own then runs in a thread.

    Args:
        batch: the rows.
        servers: at least one, or a roster.
        folder: for the files and the journal; made if missing.
        depth: prompts in each server's queue at once, 1 or more.
        patience: seconds to wait while no server answers.
        on_result: told of every row that is done or has failed.
        roster: says every few seconds anew which servers there are; those that it names no more get no further rows.

    Raises:
        ValueError: no server or a depth below 1; or the journal is another batch's, damaged, or in use.
        OSError: a file cannot be written; what is done is in the journal.
    """
    if not (servers or roster) or depth < 1:
        raise ValueError("There must be a server, and room for one prompt at least in its queue.")
    servers = list({server.url: server for server in servers}.values())
    folder, began, interrupted, tally = Path(folder), time.monotonic(), False, Tally()

    def told(result: Result) -> None:
        tally.add(result)
        if on_result:
            on_result(result)

    journal = Journal(folder, batch.digest)
    try:
        remove_leftovers(folder)
        earlier = {row.number: journal.done[row.number] for row in batch.rows if _is_done(journal, folder, row.number)}
        left = [row.number for row in batch.rows if row.number not in earlier]
        scheduler = Scheduler(left, [server.url for server in servers], journal, told)
        crew = Crew(scheduler, lambda server: Worker(server, scheduler, batch, folder, depth), roster)
        try:
            _run(_work(crew, servers, patience))
        except KeyboardInterrupt:
            interrupted = True
        every = [*earlier.values(), *scheduler.results.values()]
        table = write_results(folder, every, {row.number: row for row in batch.rows})
    finally:
        journal.close()
    report = BatchReport(len(batch.rows), len(earlier), scheduler.results, interrupted=interrupted)
    report.missing = [row for row in left if row not in scheduler.results]
    report.unusable, report.seconds = scheduler.unusable, time.monotonic() - began
    report.servers, report.table = tally.shares, table
    return report


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end in an event loop of its own; an interrupt ends it early, as it does `asyncio.run`."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[None] | None]] = Future()

    async def told() -> None:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        await work

    with ThreadPoolExecutor(1) as thread:  # one thread has one running loop, and the caller's has this one
        ended = thread.submit(asyncio.run, told())
        try:
            ended.result()
        except KeyboardInterrupt:  # reaches the caller's thread alone
            loop, task = begun.result()
            if task and not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
            raise


def _is_done(journal: Journal, folder: Path, row: int) -> bool:
    """Whether the row's files are all there still."""
    return row in journal.done and all((folder / name).is_file() for name in journal.done[row].files)


async def _work(crew: Crew, servers: Sequence[ComfyServer], patience: float) -> None:
    asyncio.get_running_loop().set_default_executor(DaemonThreads())
    await crew.work(servers, patience)
