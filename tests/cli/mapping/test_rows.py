"""Ids and seeds of a table's rows."""

import hashlib
import random

import pytest

from unclip.cli.mapping.rows import digest, make_rows, row_seed

TABLE = [{"prompt": f"a cat number {i}", "id": i} for i in range(20)]


def test_a_row_has_its_seed_wherever_it_stands():
    rows = {row.id: row for row in make_rows(TABLE, seed=3)}
    shuffled = random.Random(0).sample(TABLE, len(TABLE))
    assert {row.id: row for row in make_rows(shuffled[:7], seed=3)} == {r["id"]: None for r in []} | {
        str(entry["id"]): rows[str(entry["id"])] for entry in shuffled[:7]
    }
    assert len({row.seed for row in rows.values()}) == 20
    assert all(0 <= row.seed < 2**53 for row in rows.values())


def test_the_seed_is_the_hash_that_the_docstring_names():
    data = hashlib.blake2b(b"3\0some id", digest_size=8).digest()
    assert row_seed("some id", 3) == int.from_bytes(data, "little") >> 11
    assert digest("some id") == hashlib.blake2b(b"some id", digest_size=16).digest()


def test_without_an_id_a_row_is_what_it_says():
    first, again, other = make_rows([{"prompt": "a", "n": 1}, {"n": 1.0, "prompt": "a", "x": None}, {"prompt": "b"}])
    assert first.id == again.id != other.id
    assert first.values == {"prompt": "a", "n": 1}


def test_rows_of_nothing_but_empty_cells_are_left_out():
    assert list(make_rows([{"prompt": None, "id": ""}, {"prompt": "", "id": float("nan")}])) == []


def test_copies_have_ids_and_seeds_of_their_own():
    rows = list(make_rows([{"prompt": "a", "id": "x"}], count=3))
    assert [row.id for row in rows] == ["x", "x#2", "x#3"]
    assert rows[0] == next(make_rows([{"prompt": "a", "id": "x"}]))
    assert len({row.seed for row in rows}) == 3
    given = list(make_rows([{"prompt": "a", "id": "x", "seed": 7.0}], count=3))
    assert [row.seed for row in given] == [7, 8, 9] and "seed" not in given[0].values


def test_a_seed_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="The seed of row 'x' is 'abc'"):
        list(make_rows([{"prompt": "a", "id": "x", "seed": "abc"}]))
