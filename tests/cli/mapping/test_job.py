"""What a run of `unclip map` does around Ray, without one."""

from contextlib import nullcontext

import pytest

pytest.importorskip("pyarrow", reason="unclip map needs the extra [ray], which is not installed")

from unclip.cli.mapping import job as mapping
from unclip.cli.mapping.results import Output
from unclip.cli.mapping.tasks import Setup


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(mapping, "connected", lambda pool: nullcontext())


def run(table, folder):
    return mapping.run(mapping.Job(Setup("text-to-image"), str(table), Output(str(folder))), lambda counts: None)


def test_a_run_whose_table_cannot_be_read_leaves_the_folder_to_the_next(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="There is no table at"):
        run(tmp_path / "promts.csv", out)
    assert not (out / "run.json").exists()
