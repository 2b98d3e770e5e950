"""What a batch has done so far, in a file that survives a crash: one JSON object a line, on disk before it counts.

A prompt's id is written down before the prompt is sent. So a run that goes on after a crash can ask the servers what
became of each, and neither queues a row a second time nor forgets one.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

FILE = "journal.jsonl"


@dataclass(frozen=True)
class Flight:
    """A row that was sent: to which server, under which id."""

    row: int
    server: str
    prompt_id: str


class Journal:
    """The journal of one batch in its output folder.

    Attributes:
        done: row → the names of its files.
        flying: row → where it was last sent, if nothing has come of that yet.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Open the folder's journal, or begin it.

        Raises:
            ValueError: it is another batch's, it is damaged, or another process is at it.
            OSError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self.done: dict[int, list[str]] = {}
        self.flying: dict[int, Flight] = {}
        self._sent: dict[int, int] = {}
        self._lock = threading.Lock()
        self._file = self.path.open("a+b")
        _claim(self._file, self.path)
        entries = self._read()
        if not entries:
            self._batch = uuid.uuid4().hex
            self._write({"kind": "batch", "digest": digest, "batch": self._batch})
        elif entries[0].get("digest") != digest:
            self.close()
            raise ValueError(
                f"'{self.path}' is the journal of another batch: its workflow or its rows differ. "
                "Take another --output, or delete that folder's journal."
            )
        else:
            self._batch = entries[0]["batch"]
            self._replay(entries[1:])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def sending(self, row: int, server: str) -> Flight:
        """A new flight of a row; it is on disk when this returns."""
        with self._lock:
            attempt = self._sent.get(row, 0)
            flight = Flight(row, server, str(uuid.uuid5(uuid.UUID(self._batch), f"{row}/{attempt}")))
            self._sent[row] = attempt + 1
            self.flying[row] = flight
            self._write({"kind": "sending", **vars(flight)})
        return flight

    def renamed(self, flight: Flight, prompt_id: str) -> Flight:
        """The flight under the id that a server gave it, which does not take ours."""
        with self._lock:
            flight = Flight(flight.row, flight.server, prompt_id)
            self.flying[flight.row] = flight
            self._write({"kind": "renamed", **vars(flight)})
        return flight

    def landed(self, row: int, files: list[str], warnings: list[str]) -> None:
        """The row is done: its files are on disk."""
        with self._lock:
            self.done[row] = files
            self.flying.pop(row, None)
            self._write({"kind": "done", "row": row, "files": files, "warnings": warnings})

    def dropped(self, row: int, reason: str) -> None:
        """Nothing came of the row's last flight."""
        with self._lock:
            self.flying.pop(row, None)
            self._write({"kind": "dropped", "row": row, "reason": reason})

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._file.truncate(len(whole))  # a line that a crash cut off: it did not count yet
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except json.JSONDecodeError as error:
            self.close()
            raise ValueError(f"'{self.path}' is damaged: {error}. Delete it to begin anew.") from error

    def _replay(self, entries: list[dict[str, Any]]) -> None:
        for entry in entries:
            row, kind = entry["row"], entry["kind"]
            if kind in ("sending", "renamed"):
                self.flying[row] = Flight(row, entry["server"], entry["prompt_id"])
                self._sent[row] = self._sent.get(row, 0) + (kind == "sending")
            else:
                self.flying.pop(row, None)
            if kind == "done":
                self.done[row] = entry["files"]

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _claim(file: IO[bytes], path: Path) -> None:
    """Keep a second process away from the journal, where the system can."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ValueError(f"Another process is at the batch in '{path.parent}'.") from error
