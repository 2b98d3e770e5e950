"""Structures from outside: read, checked, and every fault one sentence."""

import json
from dataclasses import dataclass
from typing import Annotated

import pytest
from pydantic import Field

from unclip.unclip_core.output import legible
from unclip.unclip_core.parsing import MalformedInput, checked, parse_json, read_json, read_toml


@dataclass(frozen=True)
class Net:
    __pydantic_config__ = {"extra": "forbid"}

    layers: Annotated[int, Field(ge=1, le=512)]
    widths: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.layers == 13:
            raise ValueError("layers must not be 13")


def test_a_table_becomes_a_dataclass_and_a_list_a_tuple():
    assert checked(Net, {"layers": 3, "widths": [4, 5]}, "it") == Net(3, (4, 5))
    assert checked(dict[str, int], {"a": 1}, "it") == {"a": 1}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"layers": 10**9}, "layers: Input should be less than or equal to 512 (it is 1000000000)"),
        ({"layers": "3"}, "layers: Input should be a valid integer (it is '3')"),
        ({"layers": True}, "layers: Input should be a valid integer (it is True)"),
        ({"layers": 3.5}, "layers: Input should be a valid integer"),
        ({}, "layers: Field required"),
        ({"layers": 13}, "layers must not be 13"),
        ({"layers": 3, "lyers": 4}, "lyers: Unexpected keyword argument"),
        ({"layers": 3, "widths": [1, None]}, "widths.1: Input should be a valid integer (it is None)"),
        ([], "Input should be an object"),
        ({"layers": 3, "widths": {1j}}, "set is not JSON serializable"),
    ],
)
def test_each_fault_is_named_with_its_place(value, said):
    with pytest.raises(MalformedInput, match="^It is not usable: ") as caught:
        checked(Net, value, "It")
    assert said in str(caught.value)


def test_many_faults_are_counted_and_long_values_cut():
    with pytest.raises(MalformedInput) as caught:
        checked(dict[str, int], {str(i): "x" * 10_000 for i in range(9)}, "It")
    assert "and 6 more" in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("depth", [10, 200_000])
def test_json_of_any_depth_ends_in_a_value_or_a_sentence(depth):
    text = "[" * depth + "]" * depth
    if depth == 10:
        assert parse_json(text, "It") == json.loads(text)
    else:
        with pytest.raises(MalformedInput, match="It is nested too deep"):
            parse_json(text, "It")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "not valid JSON: .*line 1, column 2"),
        (b"\xff\xfe{", "not UTF-8 text"),
        (b"", "not valid JSON"),
        (b"1" * 5000, "cannot be read as JSON"),
    ],
)
def test_what_is_no_json_is_said(data, said):
    with pytest.raises(MalformedInput, match=f"^It .*{said}"):
        parse_json(data, "It")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfa = 1\n")
    assert read_json(tmp_path / "a.json") == read_toml(tmp_path / "a.toml") == {"a": 1}


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "a = " + "[" * 10_000])
def test_what_is_no_toml_is_said(tmp_path, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(MalformedInput, match="is not valid TOML"):
        read_toml(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    assert read_json(path, max_bytes=6) == [1, 2]
    with pytest.raises(MalformedInput, match="has 6 bytes; at most 5 are read"):
        read_json(path, max_bytes=5)


@pytest.mark.parametrize("half", ["\ud800", "\udcff", "a \ud83d b"])
def test_half_a_character_in_a_text_is_made_legible(half):
    """A paste into a prompt can leave one; before, it cost the whole workflow. Escapes and whole characters stay."""
    value = {half: [half, "\\ud800", "😀 θ \u2028"]}
    assert checked(dict[str, list[str]], value, "It") == {legible(half): [legible(half), "\\ud800", "😀 θ \u2028"]}
