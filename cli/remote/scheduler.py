"""Which row goes to which server: the state that the workers, one a server, share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .journal import Flight, Journal

LOST_MAX = 5
"""After so many losses with a server that went down, a row counts as failed: it may be what brings servers down."""


@dataclass(frozen=True)
class Result:
    """What came of a row: the names of its files, or an error."""

    row: int
    files: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    server: str = ""


class Scheduler:
    """Hands rows to servers and collects results: each waits, is in flight, or is done. Thread-safe.

    A row that a server refuses, or that fails there, is offered to the others, and fails for good once every server
    that answers has been tried: a server that lacks a node must not spoil the rows that another could do.
    """

    def __init__(
        self, rows: Iterable[int], servers: Iterable[str], journal: Journal, on_result: Callable[[Result], None]
    ) -> None:
        self.results: dict[int, Result] = {}
        self.stopped = threading.Event()
        self._journal, self._on_result = journal, on_result
        self._lock = threading.RLock()
        self._up: dict[str, bool] = dict.fromkeys(servers, True)
        self._all_down_since: float | None = None
        self._errors: dict[int, dict[str, str]] = {}
        self._lost: dict[int, int] = {}
        self._flying: dict[str, dict[str, Flight]] = {server: {} for server in self._up}
        self._waiting: deque[int] = deque()
        for row in rows:
            flight = journal.flying.get(row)
            if flight is not None and flight.server in self._flying:
                self._flying[flight.server][flight.prompt_id] = flight
            else:
                self._waiting.append(row)
        self._left = len(self._waiting) + sum(len(flights) for flights in self._flying.values())

    @property
    def finished(self) -> bool:
        """Whether every row has its result, or the run was stopped."""
        return self._left == 0 or self.stopped.is_set()

    def flying(self, server: str) -> list[Flight]:
        """Return the rows in flight on a server."""
        with self._lock:
            return list(self._flying[server].values())

    def take(self, server: str) -> Flight | None:
        """Send the next row that this server has not tried: returns it with the id to send it under, or None."""
        with self._lock:
            for row in self._waiting:
                if server not in self._errors.get(row, ()):
                    self._waiting.remove(row)
                    flight = self._journal.sending(row, server)
                    self._flying[server][flight.prompt_id] = flight
                    return flight
        return None

    def rename(self, flight: Flight, prompt_id: str) -> None:
        """The server gave the prompt another id than ours."""
        with self._lock:
            self._flying[flight.server].pop(flight.prompt_id, None)
            self._flying[flight.server][prompt_id] = self._journal.renamed(flight, prompt_id)

    def land(self, flight: Flight, files: list[str], warnings: list[str]) -> None:
        """The row is done, its files are on disk."""
        with self._lock:
            self._flying[flight.server].pop(flight.prompt_id, None)
            self._journal.landed(flight.row, files, warnings)
            self._settle(Result(flight.row, files, warnings, server=flight.server))

    def fail(self, flight: Flight, error: str) -> None:
        """The row failed on this server: another one may try it, if there is one that has not."""
        with self._lock:
            self._flying[flight.server].pop(flight.prompt_id, None)
            self._journal.dropped(flight.row, error)
            self._errors.setdefault(flight.row, {})[flight.server] = error
            self._waiting.appendleft(flight.row)
            self._give_up_hopeless()

    def lose(self, flights: Iterable[Flight], reason: str) -> None:
        """A server went down with these rows, or forgot them: they wait for another one."""
        with self._lock:
            for flight in flights:
                if self._flying[flight.server].pop(flight.prompt_id, None) is None:
                    continue
                self._journal.dropped(flight.row, reason)
                self._lost[flight.row] = self._lost.get(flight.row, 0) + 1
                if self._lost[flight.row] >= LOST_MAX:
                    error = f"it was lost {LOST_MAX} times; the last time: {reason}"
                    self._settle(Result(flight.row, error=error, server=flight.server))
                else:
                    self._waiting.appendleft(flight.row)

    def set_up(self, server: str, up: bool) -> None:
        """Whether a server answers."""
        with self._lock:
            self._up[server] = up
            if any(self._up.values()):
                self._all_down_since = None
            elif self._all_down_since is None:
                self._all_down_since = time.monotonic()
            self._give_up_hopeless()

    def all_down_for(self) -> float:
        """Seconds for which no server has answered; 0 while one does."""
        with self._lock:
            return 0.0 if self._all_down_since is None else time.monotonic() - self._all_down_since

    def _give_up_hopeless(self) -> None:
        up = {server for server, is_up in self._up.items() if is_up}
        for row in list(self._waiting):
            tried = self._errors.get(row)
            if tried and up and up <= set(tried):
                self._waiting.remove(row)
                server, error = next(iter(tried.items()))
                self._settle(Result(row, error=error, server=server))

    def _settle(self, result: Result) -> None:
        self._left -= 1
        self.results[result.row] = result
        self._on_result(result)
