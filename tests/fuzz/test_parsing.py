"""JSON and TOML from outside: a value or a MalformedInput, whatever the bytes."""

from dataclasses import dataclass
from typing import Any

import pytest
from fuzz.mutations import Hangs, bounded, damaged_bytes, damaged_json, fuzzed, survives
from hypothesis import given

from unclip.unclip_core.families.download_record import NAME, Record
from unclip.unclip_core.parsing import MalformedInput, checked, parse_json, read_toml

GOOD = {"name": "x", "steps": [1, 2, 3], "inner": {"width": 16, "on": True, "text": "é"}, "scale": 1.5}
TOML = b'a = 1\n[b]\nc = [1, 2]\nd = "x"\n'


@dataclass(frozen=True)
class Inner:
    width: int
    on: bool
    text: str


@dataclass(frozen=True)
class Whole:
    name: str
    steps: tuple[int, ...]
    inner: Inner
    scale: float


@fuzzed
@given(data=damaged_json(GOOD))
def test_json(data):
    found: Any = survives(lambda: checked(Whole, parse_json(data, "it"), "it"), MalformedInput)
    assert found is None or isinstance(found.inner.width, int)


@fuzzed
@given(data=damaged_bytes(TOML))
def test_toml(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(data)
    survives(lambda: read_toml(path), MalformedInput)


@fuzzed
@given(data=damaged_bytes(b'{"model_index.json": "0123abcd", "prior/config.json": ""}'))
def test_the_record_of_a_download(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    (folder / NAME).write_bytes(data)
    found = survives(lambda: Record.read(folder), MalformedInput)
    assert found is None or all(isinstance(version, str) for version in found.versions.values())


def test_the_harness_notices_what_hangs_and_what_takes_too_much():
    """A harness that noticed nothing would let every reader pass."""
    with pytest.raises(Hangs), bounded(seconds=1):
        while True:
            pass
    with pytest.raises(MemoryError), bounded(memory=1 << 28):
        bytearray(1 << 30)
    with pytest.raises(KeyError):
        survives(lambda: {}["x"], MalformedInput)
