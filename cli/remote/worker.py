"""One server's share of a batch: keeps a few prompts in its queue, and brings home what has ended."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ...unclip_core.weights.files import write_whole
from .journal import Flight
from .rows import Batch, Row
from .scheduler import Scheduler
from .server import ComfyServer, Outcome, Refused, Unreachable

log = logging.getLogger("unclip")

POLL_MIN, POLL_MAX = 0.05, 1.0
"""Seconds between two looks at a server: few while something ends, more while nothing does."""

RETRIES = 3
"""So many calls in a row have to fail before a server counts as down and its rows go to the others."""

RETRY_WAIT, PROBE_WAIT = 0.5, 2.0


class Worker:
    """The work of one server. `run` is the body of its thread."""

    def __init__(self, server: ComfyServer, scheduler: Scheduler, batch: Batch, folder: Path, depth: int) -> None:
        self._server, self._scheduler, self._folder, self._depth = server, scheduler, folder, depth
        self._batch, self._rows = batch, {row.number: row for row in batch.rows}
        self._moved: list[str] = []
        self._wait = POLL_MIN

    def run(self) -> None:
        """Work until every row has its result or the batch is stopped; an error of this side stops the whole batch."""
        try:
            while not self._scheduler.finished:
                self._steadily(self._turn)
                self._scheduler.stopped.wait(self._wait)
        except BaseException:
            self._scheduler.stopped.set()
            raise

    def _steadily(self, call: Callable[[], None]) -> None:
        """Call until the server answers; after a few tries its rows go to the others, and it is only probed."""
        for _ in range(RETRIES):
            try:
                return call()
            except Unreachable as error:
                reason = str(error)
                self._scheduler.stopped.wait(RETRY_WAIT)
        log.warning("%s Its rows go to the other servers.", reason)
        flights = self._scheduler.flying(self._server.url)
        self._moved += [flight.prompt_id for flight in flights]
        self._scheduler.lose(flights, reason)
        self._scheduler.set_up(self._server.url, False)
        self._probe()

    def _probe(self) -> None:
        while not self._scheduler.finished:
            try:
                self._server.cancel(self._moved)  # what others do now, in case it was only away
                self._moved = []
            except Unreachable:
                self._scheduler.stopped.wait(PROBE_WAIT)
            else:
                log.warning("%s answers again.", self._server.url)
                return self._scheduler.set_up(self._server.url, True)

    def _turn(self) -> None:
        """Bring home what has ended, then fill the queue up."""
        flights = self._scheduler.flying(self._server.url)
        queued = self._server.queued() if flights else set()
        ended = [flight for flight in flights if flight.prompt_id not in queued]
        for flight in ended:
            outcome = self._server.outcome(flight.prompt_id)
            if outcome is None:
                self._scheduler.lose([flight], f"{self._server.url} does not know the prompt any more.")
            elif outcome.error:
                self._scheduler.fail(flight, outcome.error)
            else:
                self._scheduler.land(flight, self._download(flight, outcome), outcome.warnings)
        sent = self._fill(self._depth - len(flights) + len(ended))
        self._wait = POLL_MIN if ended or sent else min(2 * self._wait, POLL_MAX)

    def _fill(self, room: int) -> int:
        for sent in range(room):
            flight = self._scheduler.take(self._server.url)
            if flight is None:
                return sent
            try:
                prompt_id = self._server.queue(self._batch.prompt(self._rows[flight.row]), flight.prompt_id)
            except Refused as error:
                self._scheduler.fail(flight, str(error))
            else:
                if prompt_id != flight.prompt_id:
                    self._scheduler.rename(flight, prompt_id)
        return max(room, 0)

    def _download(self, flight: Flight, outcome: Outcome) -> list[str]:
        row, names = self._rows[flight.row], []
        for number, entry in enumerate(outcome.files, start=1):
            names.append(file_name(row, number, entry["filename"]))
            write_whole(self._folder / names[-1], self._server.fetch(entry))
        return names


def file_name(row: Row, number: int, original: str) -> str:
    """The name here of a row's file: "row00007-name-2.png" is the second file of row 7."""
    said = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in row.name).strip()[:80]
    middle = f"-{said}" if said else ""
    return f"row{row.number:05}{middle}-{number}{PurePosixPath(original).suffix.lower()}"
