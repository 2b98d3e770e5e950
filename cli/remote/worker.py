"""One server's share of a batch: keeps a few prompts in its queue, and downloads the files of those that ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from .answers import Outcome
from .downloads import download, stem_of
from .journal import Submission
from .rows import Batch
from .scheduler import Scheduler
from .server import ComfyServer, OddAnswer, Refused, TooSlow, Unreachable, Unusable

log = logging.getLogger("unclip")
T = TypeVar("T")

POLL_MIN, POLL_MAX = 0.05, 1.0
"""Seconds between two looks at a server: few while something ends, more while nothing does."""

RETRIES = 3
"""So many calls in a row have to fail before a server counts as down, or a row as failed on it."""

RETRY_WAIT = 0.5
"""Seconds between them."""

PROBE_WAIT, PROBE_MAX = 2.0, 30.0
"""Seconds between two looks at a server that is down: twice as many each time, up to a bound."""


class Worker:
    """The work of one server: `run` is the body of its task."""

    def __init__(self, server: ComfyServer, scheduler: Scheduler, batch: Batch, folder: Path, depth: int) -> None:
        self._server, self._scheduler, self._folder, self._depth = server, scheduler, folder, depth
        self._batch, self._rows = batch, {row.number: row for row in batch.rows}
        self._answered = False  # whether it has ever answered as a ComfyUI does
        self._failures = 0  # turns in a row that failed
        self._odd: dict[int, str] = {}  # row → what the server said when it was sent
        self._wait = POLL_MIN

    async def run(self) -> None:
        """Work until every row has its result, or the server leaves or is unusable; cancelled at any time."""
        async with self._server:
            await self._work()
        if self._scheduler.has_left(self._server.url):
            log.warning("%s has left.", self._server.url)
            self._scheduler.set_up(self._server.url, False)

    async def _work(self) -> None:
        while not self._scheduler.finished and not self._scheduler.has_left(self._server.url):
            try:
                await self._turn()
            except Unusable as error:
                return self._dismiss(str(error))
            except (Unreachable, OddAnswer) as error:
                self._failures += 1
                if isinstance(error, OddAnswer) and not self._answered and self._failures >= RETRIES:
                    return self._dismiss(str(error))
                await asyncio.sleep(self._pause(error))
            else:
                self._succeeded()
                await asyncio.sleep(self._wait)

    def _dismiss(self, reason: str) -> None:
        log.warning("%s", reason)
        self._scheduler.dismiss(self._server.url, reason)

    def _pause(self, error: Exception) -> float:
        """Seconds to wait after a turn that failed; after a few such the server counts as down."""
        over = self._failures - RETRIES
        if isinstance(error, TooSlow):
            self._failures, over = max(self._failures, RETRIES), max(over, 0)
        if over < 0:
            return RETRY_WAIT
        if over == 0:
            log.warning("%s Until it answers again, other servers may do its rows.", error)
        self._scheduler.set_up(self._server.url, False)
        return float(min(PROBE_WAIT * 2 ** min(over, 10), PROBE_MAX))

    def _succeeded(self) -> None:
        if self._failures >= RETRIES:
            log.warning("%s answers again.", self._server.url)
        if self._failures:
            self._failures = 0
            self._scheduler.set_up(self._server.url, True)

    async def _turn(self) -> None:
        """Settle what has ended, then fill the queue up (with one prompt only, after a turn that failed)."""
        await self._cancel_taken_over()
        submissions = self._scheduler.in_flight(self._server.url)
        queued = await self._server.queued() if submissions or self._failures or not self._answered else set()
        self._answered = True
        ended = [submission for submission in submissions if submission.prompt_id not in queued]
        for submission in ended:
            await self._collect(submission)
        sent = await self._fill(1 if self._failures else self._depth)
        self._wait = POLL_MIN if ended or sent else min(2 * self._wait, POLL_MAX)

    async def _cancel_taken_over(self) -> None:
        """Cancel what other servers do now; it does no harm if the server does not do it."""
        if prompt_ids := self._scheduler.taken_over(self._server.url):
            try:
                await self._server.cancel(prompt_ids)
            except (OddAnswer, Unreachable) as error:
                log.info("%s What others do meanwhile was not cancelled there.", error)

    async def _collect(self, submission: Submission) -> None:
        """Settle a prompt that is not in the queue any more."""
        try:
            outcome = await self._persistently(lambda: self._server.outcome(submission.prompt_id))
            if outcome is None:
                reason = self._odd.pop(submission.row, f"{self._server.url} does not know the prompt any more.")
                return self._scheduler.lose(submission, reason)
            files = [] if outcome.error else await self._download(submission, outcome)
        except OddAnswer as error:
            return self._scheduler.fail(submission, str(error))
        if outcome.error or submission.node_errors:
            return self._scheduler.fail(submission, outcome.error or submission.node_errors, files)
        self._scheduler.complete(submission, files, outcome.warnings)

    async def _download(self, submission: Submission, outcome: Outcome) -> list[str]:
        row, names = self._rows[submission.row], []
        for number, file in enumerate(outcome.files, start=1):
            stem = stem_of(row, number)
            names.append(await self._persistently(lambda: download(self._server, file, self._folder, stem)))  # noqa: B023
        return names

    async def _persistently(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of a call about one row, tried a few times; what is wrong with one does not stop the others.

        Raises:
            OddAnswer: this call fails, but the server answers others: the row fails here.
            Unreachable, Unusable: the server does not answer others either.
        """
        reason = ""
        for attempt in range(RETRIES):
            if attempt:
                await asyncio.sleep(RETRY_WAIT)
            try:
                return await call()
            except (OddAnswer, Unreachable) as error:
                reason = str(error)
                if isinstance(error, TooSlow):
                    break
        await self._server.queued()
        raise OddAnswer(reason)

    async def _fill(self, depth: int) -> int:
        """Send rows until so many are in flight; returns how many were sent."""
        sent = 0
        while len(self._scheduler.in_flight(self._server.url)) < depth:
            submission = self._scheduler.take(self._server.url)
            if submission is None:
                break
            await self._send(submission)
            sent += 1
            if sent >= depth:
                break
        return sent

    async def _send(self, submission: Submission) -> None:
        try:
            prompt = self._batch.prompt(self._rows[submission.row])
            accepted = await self._server.queue(prompt, submission.prompt_id)
        except Refused as error:
            self._scheduler.fail(submission, str(error))
        except OddAnswer as error:
            self._odd[submission.row] = str(error)  # the next turn finds out whether it is queued
        else:
            if accepted.prompt_id != submission.prompt_id or accepted.node_errors:
                self._scheduler.rename(submission, accepted.prompt_id, accepted.node_errors)
