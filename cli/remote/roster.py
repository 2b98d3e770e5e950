"""Which servers take part: those of the command line, and those of a file that is read again while the batch runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...unclip_core.parsing import read_text
from .server import ComfyServer

MAX_BYTES = 2**20


class Roster:
    """The servers, anew at every call: the fixed ones, and one a line of a file.

    A server whose line stays the same stays the same object; one that went and comes back is another.

    Args:
        addresses: those that stay.
        path: a file with an address a line; what follows a # at a line's start or behind a blank is a comment.
        headers: to send to all of them.
    """

    def __init__(self, addresses: Sequence[str], path: Path, headers: Mapping[str, str] | None = None) -> None:
        self._fixed, self._path, self._headers = list(addresses), path, headers
        self._known: dict[str, ComfyServer] = {}

    def __call__(self) -> list[ComfyServer]:
        """Read the file and return the servers.

        Raises:
            ValueError: a line is no address; the message says which line.
            OSError: the file cannot be read.
        """
        self._known = {text: self._server(text, "") for text in self._fixed} | {
            text: self._server(text, f"'{self._path}', line {number}: ")
            for number, text in _addresses(read_text(self._path, MAX_BYTES))
        }
        return list({server.url: server for server in self._known.values()}.values())

    def _server(self, text: str, place: str) -> ComfyServer:
        try:
            return self._known.get(text) or ComfyServer(text, headers=self._headers)
        except ValueError as error:
            raise ValueError(f"{place}{error}") from error


def _addresses(text: str) -> list[tuple[int, str]]:
    """(number of the line, address) of the lines that hold one."""
    lines = [(number, f" {line}".split(" #")[0].strip()) for number, line in enumerate(text.split("\n"), start=1)]
    return [(number, line) for number, line in lines if line]
