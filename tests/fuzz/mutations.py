"""Damage for readers to survive: bytes, structures and texts, drawn by hypothesis, and the harness that tries them.

A test takes `fuzzed` as its decorator and says what the reader may raise:

    @fuzzed
    @given(damage=damaged_bytes(GOOD))
    def test_...(damage):
        survives(lambda: read(damage), CheckpointError)
"""

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

THOROUGH = int(os.environ.get("UNCLIP_FUZZ", 0))
"""Damages a test is given by `make fuzz`; 0, in `make test`, takes a few, the same ones each time."""
QUICK = 5
SECONDS = 60
MEMORY = 2 << 30
"""Bytes of address space that one reading may take beyond what the process has."""

fuzzed = settings(
    max_examples=THOROUGH or QUICK,
    derandomize=not THOROUGH,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
"""The decorator of a fuzz test, above its `@given`."""

DEEP = 100_000
"""Levels that no parser written in Python can go down."""


# ---- bytes ----


@st.composite
def damaged_bytes(draw: Any, good: bytes, most: int = 4) -> bytes:
    """`good` with one to `most` damages: flipped bits, cuts, zeros, pieces doubled or left out, foreign bytes."""
    data = good
    for _ in range(draw(st.integers(1, most))):
        data = _DAMAGES[draw(st.sampled_from(sorted(_DAMAGES)))](draw, data)
    return data


def _place(draw: Any, data: bytes) -> int:
    """Where to strike: half the time near the start, where headers are."""
    end = max(len(data) - 1, 0)
    return draw(st.one_of(st.integers(0, min(end, 256)), st.integers(0, end)))


def _piece(draw: Any, data: bytes) -> tuple[int, int]:
    start = _place(draw, data)
    return start, start + draw(st.integers(1, 64))


def _flip(draw: Any, data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :] if data else data


def _cut(draw: Any, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def _zero(draw: Any, data: bytes) -> bytes:
    start, end = _piece(draw, data)
    return data[:start] + bytes(len(data[start:end])) + data[end:]


def _double(draw: Any, data: bytes) -> bytes:
    start, end = _piece(draw, data)
    return data[:end] + data[start:]


def _leave_out(draw: Any, data: bytes) -> bytes:
    start, end = _piece(draw, data)
    return data[:start] + data[end:]


def _put_in(draw: Any, data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.binary(min_size=1, max_size=16)) + data[at:]


_DAMAGES: dict[str, Callable[[Any, bytes], bytes]] = {
    "flip": _flip, "cut": _cut, "zero": _zero, "double": _double, "leave out": _leave_out, "put in": _put_in,
}  # fmt: skip


# ---- structures ----

ODD_NUMBERS = [
    0,
    -1,
    1,
    2,
    3,
    7,
    512,
    2**31,
    2**63,
    10**9,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
]
ODD_TEXTS = ["", " ", "x", "../x", "/etc/passwd", "a\0b", "\ud800", "ü" * 300, "null", "1", "😀"]
ODD_VALUES = [None, True, False, [], {}, [[]], [None], {"x": None}, [[[[[]]]]], {"": {"": {}}}, ["a", 1], *ODD_NUMBERS]


@st.composite
def damaged(draw: Any, good: Any, most: int = 2) -> Any:
    """What JSON can hold, `good`, with one to `most` places changed: another type, a huge number, a key gone or new."""
    value = good
    for _ in range(draw(st.integers(1, most))):
        value = _struck(draw, value)
    return value


def _struck(draw: Any, value: Any) -> Any:
    inside = isinstance(value, dict | list) and len(value) > 0
    if not inside or draw(st.integers(0, 5)) == 0:
        return draw(st.one_of(st.sampled_from(ODD_VALUES), st.sampled_from(ODD_TEXTS)))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys[:200]))
    how = draw(st.sampled_from(["go in", "go in", "go in", "leave out", "add", "swap"]))
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    if how == "go in":
        changed[key] = _struck(draw, value[key])
    elif how == "leave out":
        del changed[key]
    elif how == "swap":
        other = draw(st.sampled_from(keys[:200]))
        changed[key], changed[other] = value[other], value[key]
    elif isinstance(changed, dict):
        changed[draw(st.sampled_from(ODD_TEXTS))] = draw(st.sampled_from(ODD_VALUES))
    else:
        changed.insert(key, draw(st.sampled_from(ODD_VALUES)))
    return changed


def as_json(value: Any) -> bytes:
    """JSON of a damaged structure; lone surrogates and infinities are written as Python reads them."""
    return json.dumps(value).encode()


@st.composite
def damaged_json(draw: Any, good: Any) -> bytes:
    """A JSON file: its structure damaged, its bytes damaged, nested too deep, or with a byte-order mark."""
    how = draw(st.sampled_from(["structure", "structure", "structure", "structure", "bytes", "deep", "mark"]))
    if how == "deep":
        return draw(st.sampled_from([b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP]))
    if how == "bytes":
        return draw(damaged_bytes(as_json(good)))
    return (b"\xef\xbb\xbf" if how == "mark" else b"") + as_json(draw(damaged(good)))


# ---- trying ----


class Hangs(BaseException):
    """A reading took longer than `SECONDS`; no reader catches this by accident."""


def survives(read: Callable[[], Any], *refusals: type[BaseException]) -> Any:
    """What `read` gives, or None where it refuses with one of `refusals`; in time and in bounds.

    Any other exception passes through, and fails the test.
    """
    try:
        with bounded():
            return read()
    except refusals as error:
        assert str(error).strip(), f"{type(error).__name__} says nothing"
        return None


@contextlib.contextmanager
def bounded(seconds: int = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Raise `Hangs` after `seconds` of the process's own work, which others' does not count in.

    The system refuses `memory` more bytes, where it can.
    """
    try:
        import resource
    except ImportError:  # Windows has neither limit nor alarm
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    timed = threading.current_thread() is threading.main_thread()

    def ring(*_: object) -> None:
        raise Hangs(f"it took more than {seconds} s of work")

    before = signal.signal(signal.SIGPROF, ring) if timed else None
    try:
        if timed:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        with contextlib.suppress(OSError, ValueError):  # systems that keep no such limit
            resource.setrlimit(resource.RLIMIT_AS, (_address_space() + memory, hard))
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        if timed:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)


def _address_space() -> int:
    """Bytes of address space that this process has."""
    text = Path("/proc/self/statm").read_text()
    return int(text.split()[0]) * os.sysconf("SC_PAGE_SIZE")
