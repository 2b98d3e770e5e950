"""`unclip bench map`: its figures, small, and its run whose workers are killed."""

import json

import pytest

pytest.importorskip("ray", reason="unclip bench map needs the extra [ray], which is not installed")

from unclip.__main__ import main
from unclip.cli.mapping import bench
from unclip.cli.mapping.bench import Clock
from unclip.cli.mapping.job import Counts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray")]


def test_the_clock_counts_what_comes_after_the_first_batches():
    now = iter([0.0, 3.0, 4.0, 5.0, 9.0])
    clock = Clock(warm=8, time=lambda: next(now))
    for made in (0, 8, 12, 28):
        clock(Counts(28, 0, made=made))
    assert (clock.start, clock.rate) == (4.0, 4.0)


def test_figures(capsys):
    arguments = ["--rows", "12", "--batch", "4", "--fake-rows", "160", "--empty-rows", "64", "--workers", "2"]
    assert main(["bench", "map", *arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["fake"]["ideal"] == 200 and 0 < figures["fake"]["rate"] <= 240
    assert figures["scaling"]["times"] == pytest.approx(figures["scaling"]["workers"] / figures["scaling"]["one"])
    assert set(figures["overhead"]) == {"seconds_a_row", "start"}


def test_a_run_whose_workers_are_killed_has_every_image_once(capsys):
    """Batches of 4 and one of 2: each is drawn again as it was, since batches of another size round otherwise."""
    assert main(["bench", "map", "--kill-every", "1", "--rows", "26", "--batch", "4", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["kills"] >= 1 and figures["made"] == figures["same_ids"] == figures["distinct_images"] == 26
    assert figures["batches"] >= 7 and figures["missing"] == figures["failed"] == 0
    assert figures["equal_to_the_byte"] == 26 and figures["largest_difference"] == 0


@pytest.mark.parametrize("options", [[], ["--kill-every", "20"]])
def test_too_few_rows_are_refused(capsys, options):
    assert main(["bench", "map", "--rows", "20", *options]) == 1
    assert "rows must be 48 or more, not 20" in capsys.readouterr().err
    assert main(["bench", "map", "--rows", "0", *options]) == 1
    assert "rows must be 48 or more, not 0" in capsys.readouterr().err


@pytest.mark.parametrize(("options", "rows"), [(["--rows", "200"], 200), ([], 500)])
def test_rows_of_a_run_with_kills_are_those_that_were_asked_for(monkeypatch, options, rows):
    found = []
    monkeypatch.setattr(bench, "bench_kills", lambda every, sizes, *_: found.append((every, sizes.rows, sizes.workers)))
    assert main(["bench", "map", "--kill-every", "20", *options, "--workers", "8"]) == 0
    assert found == [(20, rows, 8)]
