"""The servers at work, a task each; with a roster, servers join and leave while the batch runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .scheduler import Scheduler
from .server import ComfyServer
from .worker import Worker

log = logging.getLogger("unclip")

ROSTER_EVERY = 2.0
"""Seconds between two looks at the roster."""

_LOOK = 0.05
"""Seconds between two looks whether the batch has ended."""


@dataclass(frozen=True)
class _Hired:
    server: ComfyServer
    task: asyncio.Task[None]


class Crew:
    """The tasks of the servers of one batch.

    Args:
        scheduler: hands out the rows; it knows the first servers.
        make_worker: the work of one server.
        roster: says anew which servers there are; None where they stay the same.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        make_worker: Callable[[ComfyServer], Worker],
        roster: Callable[[], Sequence[ComfyServer]] | None = None,
    ) -> None:
        self._scheduler, self._make_worker, self._roster = scheduler, make_worker, roster
        self._hired: dict[str, _Hired] = {}
        self._looked, self._said = time.monotonic(), ""

    async def work(self, servers: Iterable[ComfyServer], patience: float) -> None:
        """Work until every row has its result or no server can be used. Raises what went wrong in a task.

        Args:
            servers: to begin with.
            patience: seconds to wait while no server answers.
        """
        try:
            self._update(servers)
            while not self._scheduler.finished and self._scheduler.all_down_for() <= patience:
                await self._look_at_roster()
                if not await self._some_run() and self._roster is None:
                    return
        finally:
            tasks = [hired.task for hired in self._hired.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _some_run(self) -> bool:
        """Wait for a moment; whether any task runs still."""
        tasks = [hired.task for hired in self._hired.values()]
        if all(task.done() for task in tasks):
            await asyncio.sleep(_LOOK)
        else:
            await asyncio.wait(tasks, timeout=_LOOK, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        return not all(task.done() for task in tasks)

    async def _look_at_roster(self) -> None:
        """Take up what has changed; a roster that cannot be read changes nothing, and is complained of once."""
        if self._roster is None or time.monotonic() - self._looked < ROSTER_EVERY:
            return
        self._looked = time.monotonic()
        try:
            wanted = await asyncio.to_thread(self._roster)
        except (ValueError, OSError) as error:
            if str(error) != self._said:
                log.warning("The servers stay as they are: %s", error)
            self._said = str(error)
        else:
            self._said = ""
            self._update(wanted)

    def _update(self, servers: Iterable[ComfyServer]) -> None:
        """Tell those that are not wanted any more to leave, and let new ones begin."""
        wanted = {server.url: server for server in servers}
        for url, hired in self._hired.items():
            if wanted.get(url) is not hired.server and not hired.task.done():
                self._scheduler.leave(url)
        for url, server in wanted.items():
            before = self._hired.get(url)
            # One that is wanted again while its last rows end begins anew when they have.
            if before is None or (before.server is not server and before.task.done()):
                self._scheduler.join(url)
                self._hired[url] = _Hired(server, asyncio.create_task(self._make_worker(server).run()))
