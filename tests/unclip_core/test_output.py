"""Printing that cannot fail: odd characters, narrow encodings, streams that are gone."""

import errno
import io
import sys

import pytest

from unclip.unclip_core.output import SafeStream, progress_bar, safe_streams, say


class Failing(io.StringIO):
    """A stream whose writing fails."""

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.tries = 0

    def write(self, text):
        self.tries += 1
        raise self.error


def narrow(encoding):
    """A stream of that encoding, and the bytes that it gets."""
    data = io.BytesIO()
    return io.TextIOWrapper(data, encoding=encoding, errors="strict", write_through=True), data


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"\\u03b8 \\xe9 \\udcff\n"),
        ("cp1252", b"\\u03b8 \xe9 \\udcff\n"),
        ("utf-8", "θ é ".encode() + b"\\udcff\n"),
    ],
)
def test_what_a_stream_cannot_encode_is_escaped(monkeypatch, encoding, expected):
    stream, data = narrow(encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    say("θ é \udcff")
    assert data.getvalue() == expected


@pytest.mark.parametrize("to_stderr", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "gone"),
        OSError(errno.EIO, "no terminal"),
        ValueError("I/O operation on closed file"),
    ],
)
def test_a_stream_that_fails_costs_nothing(monkeypatch, error, to_stderr):
    monkeypatch.setattr(sys, "stderr" if to_stderr else "stdout", Failing(error))
    say("words", to_stderr=to_stderr)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_process_may_have_no_streams(monkeypatch, name):
    monkeypatch.setattr(sys, name, None)
    say("words", to_stderr=name == "stderr")
    with safe_streams():
        print("words", file=getattr(sys, name))
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, name, closed)
    say("words", to_stderr=name == "stderr")


def test_all_that_prints_is_safe_within_the_context(monkeypatch):
    stream, data = narrow("ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with safe_streams():
        print("θ", flush=True)
    assert data.getvalue() == b"\\u03b8\n" and sys.stdout is stream


def test_a_reader_that_has_gone_is_not_mentioned_and_a_full_disk_is(monkeypatch, capsys):
    for error, said in (
        (BrokenPipeError(errno.EPIPE, "gone"), 0),
        (OSError(errno.ENOSPC, "full"), 1),
    ):
        stream = Failing(error)
        monkeypatch.setattr(sys, "stdout", stream)
        with safe_streams():
            print("one")
            print("two")
        assert stream.tries == 1
        assert capsys.readouterr().err.count("stdout could not be written") == said


def test_a_progress_bar_finds_its_terminal_behind_the_safe_stream():
    stream, _ = narrow("cp1252")
    safe = SafeStream(stream)
    assert safe.encoding == "cp1252" and safe.isatty() is False


def test_a_progress_bar_that_cannot_be_drawn_costs_nothing(monkeypatch):
    for error in (BrokenPipeError(errno.EPIPE, "gone"), OSError(errno.ENOSPC, "full")):
        monkeypatch.setattr(sys, "stderr", Failing(error))
        assert list(progress_bar(range(3), desc="θ", mininterval=0)) == [0, 1, 2]
    stream, data = narrow("cp1252")
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar(range(3), desc="θ", mininterval=0)) == [0, 1, 2]
    assert b"\\u03b8" in data.getvalue() and b"3/3" in data.getvalue()
