"""What a run of `unclip map` does around Ray, without one."""

import json
from contextlib import nullcontext

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

import pyarrow as pa

from unclip.cli.mapping import job as mapping
from unclip.cli.mapping.results import Output
from unclip.cli.mapping.tasks import Setup


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(mapping, "connected", lambda pool: nullcontext())


def run(table, folder, task="text-to-image", **settings):
    return mapping.run(mapping.Job(Setup(str(task)), str(table), Output(str(folder)), **settings), lambda counts: None)


def test_a_run_whose_table_cannot_be_read_leaves_the_folder_to_the_next(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="There is no table at"):
        run(tmp_path / "promts.csv", out)
    assert not (out / "run.json").exists()


SAMPLER = {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2}, "_meta": {"title": "Draw"}}


@pytest.fixture
def refuses_copies(tmp_path, monkeypatch):
    """Whether three copies of a row of a workflow are refused before anything is made."""

    def refuses(nodes, **row):
        data = {"id": ["x"], **{name: [value] for name, value in row.items()}}
        monkeypatch.setattr(mapping, "read_table", lambda path: None)
        monkeypatch.setattr(mapping, "batches", lambda source, kind: [pa.table(data)])
        monkeypatch.setattr(mapping, "_checked", lambda folder, held, counts: counts)
        monkeypatch.setattr(mapping, "_work", lambda job, source, done, counts, tell: counts)
        (tmp_path / "w.json").write_text(json.dumps(nodes))
        try:
            counts = run("t.csv", tmp_path / "out", tmp_path / "w.json", count=3)
        except ValueError as error:
            assert "--count 3 would make 3 equal results of row 'x'" in str(error)
            return True
        assert counts.total == 3
        return False

    return refuses


def test_copies_that_would_be_equal_are_refused(refuses_copies):
    one, two = {"4": SAMPLER}, {"4": SAMPLER, "6": SAMPLER | {"_meta": {"title": "Again"}}}
    assert refuses_copies(one, **{"4.seed": "7"}) and refuses_copies(one, **{"Draw.seed": "7"})
    assert refuses_copies({"1": {"class_type": "Load", "inputs": {"name": "x"}}}, **{"1.name": "y"})
    assert refuses_copies(two, **{"4.seed": "7", "Again.seed": 8})
    assert not refuses_copies(one, **{"4.seed": "", "4.steps": "3"})
    assert not refuses_copies(two, **{"Draw.seed": "7"})
