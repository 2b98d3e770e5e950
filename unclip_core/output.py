"""Printing that cannot fail: no name, terminal or closed pipe may cost a run its result."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm


class SafeStream:
    """A text stream over another one: what that cannot encode is escaped (`\\u03b8`), what it cannot take is dropped.

    Attributes:
        broken: whether writing has failed; nothing is written from then on.
    """

    def __init__(self, stream: TextIO | None, on_failure: Callable[[OSError | ValueError], None] | None = None) -> None:
        """Wrap `stream` (None: the process was started without one); `on_failure` is told of the first failure."""
        self.broken = False
        self._on_failure = on_failure
        self._stream = open(os.devnull, "w", encoding="utf-8") if stream is None or stream.closed else stream

    def __getattr__(self, name: str) -> Any:
        """Everything but writing is the stream's own: progress bars ask for its terminal and encoding."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write `text`, as far as that can be done; returns its length."""
        encoding = self._stream.encoding or "utf-8"
        self._attempt(lambda: self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding)))
        return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, as far as that can be done."""
        self._attempt(self._stream.flush)

    def _attempt(self, call: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            call()
        except (OSError, ValueError) as error:  # the pipe or the terminal is gone, the disk is full, it is closed
            self.broken = True
            if self._on_failure is not None:
                self._on_failure(error)


def legible(text: str) -> str:
    """Escape what is not Unicode (`\\udcff`), such as bytes of a file's name: JSON and UTF-8 files cannot hold it."""
    return text.encode(errors="backslashreplace").decode()


def say(text: str, *, to_stderr: bool = False) -> None:
    """Print a text and a line break on stdout, or on stderr; never raises."""
    print(text, file=_safe(sys.stderr if to_stderr else sys.stdout), flush=True)


def _safe(stream: Any) -> Any:
    return stream if isinstance(stream, SafeStream) else SafeStream(stream)


def progress_bar(*arguments: Any, **options: Any) -> "tqdm[Any]":
    """Make a tqdm progress bar on stderr whose drawing never raises; the arguments are tqdm's."""
    from tqdm import tqdm

    return tqdm(*arguments, file=_safe(sys.stderr), **options)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make stdout and stderr safe for all that prints while the context lasts: progress bars and libraries too.

    A reader that has gone away (`| head`) is nobody's fault and is not mentioned; that stdout could not be written for
    another reason, such as a full disk, is said on stderr.
    """
    streams = sys.stdout, sys.stderr
    errors: Any = SafeStream(sys.stderr)
    output: Any = SafeStream(sys.stdout, lambda error: _complain(error, errors))
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            yield
    finally:
        for safe, stream in zip((output, errors), streams, strict=True):
            safe.flush()
            if safe.broken:
                _discard(stream)


def _complain(error: OSError | ValueError, errors: SafeStream) -> None:
    if not isinstance(error, BrokenPipeError):
        errors.write(f"unclip: stdout could not be written ({error}); what was to be printed is lost.\n")


def _discard(stream: TextIO) -> None:
    """Let go where it may what the stream has buffered: Python would try to write it at its end, and exit with 120."""
    with suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
