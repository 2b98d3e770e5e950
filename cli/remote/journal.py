"""What a batch has done so far, in a file that survives a crash: one JSON object a line, on disk before it counts.

A prompt's id is written down before the prompt is sent. So a run that goes on after a crash can ask the servers what
became of each, and neither queues a row a second time nor forgets one.
"""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from ...unclip_core.parsing import MalformedInput, checked, parse_json
from .address import without_credentials

FILE = "journal.jsonl"


@dataclass(frozen=True)
class Submission:
    """A row that was sent to a server.

    Attributes:
        row: its number.
        server: the address without credentials.
        prompt_id: the prompt's id there.
        node_errors: why the server leaves some of the workflow's outputs out; "" if it runs all of it.
    """

    row: int
    server: str
    prompt_id: str
    node_errors: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a row.

    Attributes:
        row: its number.
        files: the names of its files; of one that failed, those that came nevertheless.
        warnings: what the server said beside.
        error: why it failed; "" if it did not.
        server: which did it.
        seconds: from sending it until its files were here; None where an earlier run had sent it.
    """

    row: int
    files: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    server: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class _Header:
    """The first line."""

    kind: Literal["batch"]
    digest: str
    batch: str

    def __post_init__(self) -> None:
        uuid.UUID(self.batch)


@dataclass(frozen=True)
class _Entry:
    """Any other line."""

    kind: Literal["sending", "renamed", "done", "dropped"]
    row: int
    server: str = ""
    prompt_id: str = ""
    node_errors: str = ""
    files: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.kind in ("sending", "renamed") and not (self.server and self.prompt_id):
            raise ValueError(f"a line of the kind {self.kind!r} needs a server and a prompt_id")
        if self.kind == "done" and not (self.files and all(_is_name(name) for name in self.files)):
            raise ValueError("a line of the kind 'done' needs files, each a name without a folder")


def _is_name(text: str) -> bool:
    return 0 < len(text.encode()) < 256 and text not in (".", "..") and not set(text) & set("/\\\0")


class Journal:
    """The journal of one batch in its output folder.

    Attributes:
        done: row → its result.
        in_flight: row → where it was last sent, if nothing has come of that yet.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        """Open the folder's journal, or begin it.

        Raises:
            ValueError: it is another batch's, it is damaged, or another process is at it.
            OSError: it cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self.done: dict[int, Result] = {}
        self.in_flight: dict[int, Submission] = {}
        self._attempts: dict[int, int] = {}
        self._ids: set[tuple[str, str]] = set()
        self._file = self.path.open("a+b")
        try:
            _claim(self._file, self.path)
            self._batch = self._resume(digest)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def sending(self, row: int, server: str) -> Submission:
        """A new submission of a row; it is on disk when this returns."""
        attempt = self._attempts.get(row, 0)
        submission = Submission(row, server, str(uuid.uuid5(uuid.UUID(self._batch), f"{row}/{attempt}")))
        self._attempts[row] = attempt + 1
        self._sent("sending", submission)
        return submission

    def renamed(self, submission: Submission, prompt_id: str, node_errors: str) -> Submission:
        """The submission under the id that the server gave it, and with what the server says of its nodes."""
        submission = Submission(submission.row, submission.server, prompt_id, node_errors)
        self._sent("renamed", submission)
        return submission

    def is_known(self, server: str, prompt_id: str) -> bool:
        """Whether a prompt had this id on this server, at any time of this batch."""
        return (server, prompt_id) in self._ids

    def completed(self, result: Result) -> None:
        """The row is done: its files are on disk."""
        self.done[result.row] = result
        self.in_flight.pop(result.row, None)
        said = {key: value for key, value in vars(result).items() if key != "error"}
        self._write({"kind": "done", **said})

    def dropped(self, row: int, reason: str) -> None:
        """Nothing came of the row's last submission."""
        self.in_flight.pop(row, None)
        self._write({"kind": "dropped", "row": row, "reason": reason})

    def _resume(self, digest: str) -> str:
        """Read what is there, or write the first line; returns the batch's id."""
        lines = self._lines()
        if not lines:
            batch = uuid.uuid4().hex
            self._write({"kind": "batch", "digest": digest, "batch": batch})
            return batch
        try:
            header = checked(_Header, parse_json(lines[0], "line 1"), "line 1")
            if header.digest == digest:
                self._replay(lines)
        except MalformedInput as error:
            raise ValueError(f"'{self.path}' is damaged: {error} Delete it to begin anew.") from error
        if header.digest != digest:
            raise ValueError(
                f"'{self.path}' is the journal of another batch: its workflow or its rows differ. "
                "Take another --output, or delete that folder's journal."
            )
        return header.batch

    def _lines(self) -> list[bytes]:
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._file.truncate(len(whole))  # a line that a crash cut off: it did not count yet
        return whole.split(b"\n")[:-1]

    def _replay(self, lines: list[bytes]) -> None:
        for number, line in enumerate(lines[1:], start=2):
            name = f"line {number}"
            entry = checked(_Entry, parse_json(line, name), name)
            if entry.kind in ("sending", "renamed"):
                server = without_credentials(entry.server)
                self._note(Submission(entry.row, server, entry.prompt_id, entry.node_errors))
                self._attempts[entry.row] = self._attempts.get(entry.row, 0) + (entry.kind == "sending")
            else:
                self.in_flight.pop(entry.row, None)
            if entry.kind == "done":
                server = without_credentials(entry.server)
                self.done[entry.row] = Result(entry.row, entry.files, entry.warnings, "", server, entry.seconds)

    def _note(self, submission: Submission) -> None:
        self.in_flight[submission.row] = submission
        self._ids.add((submission.server, submission.prompt_id))

    def _sent(self, kind: str, submission: Submission) -> None:
        self._note(submission)
        self._write({"kind": kind, **{key: value for key, value in vars(submission).items() if value != ""}})

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
        raise ValueError(f"Another process is at the batch in '{path.parent}'.") from error
