"""`unclip evaluate`, `unclip bench` and `unclip train` as a user types them: what they hand on, and exit codes."""

import argparse
from types import SimpleNamespace

import pytest

from unclip.__main__ import main
from unclip.cli import measuring
from unclip.unclip_core.bench import inversion as bench_inversion
from unclip.unclip_core.bench import tiny as bench
from unclip.unclip_core.bench.parity import table as parity
from unclip.unclip_core.bench.speed import table as speed
from unclip.unclip_core.evaluate import describe as described
from unclip.unclip_core.evaluate import edits
from unclip.unclip_core.train import run


@pytest.fixture
def calls(monkeypatch):
    """What the measures were called with, in place of measuring."""
    found = []
    for module, name in (
        (edits, "evaluate_edits"),
        (described, "evaluate_describe"),
        (bench, "bench_tiny"),
        (bench_inversion, "bench_inversion"),
        (speed, "bench_speed"),
    ):
        monkeypatch.setattr(module, name, lambda *values, name=name, **named: found.append((name, values, named)))
    return found


def test_the_ways_of_edits_are_handed_on(calls):
    assert main(["evaluate", "edits", "--n", "7", "--theta", "0.2", "0.35", "--inverted", "--json"]) == 0
    assert calls == [("evaluate_edits", (7, 0, None, True), {"thetas": [0.2, 0.35], "inverted": True})]


def test_each_measure_has_its_own_number_of_scenes(calls):
    assert main(["evaluate", "edits"]) == main(["evaluate", "describe"]) == 0
    assert [(name, values[0]) for name, values, _ in calls] == [("evaluate_edits", 200), ("evaluate_describe", 500)]
    assert calls[0][2]["thetas"] == edits.THETAS


def test_a_bench_gets_its_own_options(calls):
    assert main(["bench", "inversion", "--n", "4", "--folder", "there"]) == 0
    assert main(["bench", "tiny", "--dtype", "bf16"]) == 0
    assert main(["bench", "speed", "--batches", "1", "--stage-steps", "4", "4", "2"]) == 0
    assert calls == [
        ("bench_inversion", (4, "there", False), {}),
        ("bench_tiny", (5,), {"as_json": False, "dtype": "bf16"}),
        ("bench_speed", ("small", ["fp32", "bf16"], [1], 3, None, False, None, [4, 4, 2]), {}),
    ]


@pytest.mark.parametrize("holds", [True, False])
def test_parity_tells_by_its_exit_code_whether_it_holds(monkeypatch, holds):
    monkeypatch.setattr(
        parity, "bench_parity", lambda as_json: [SimpleNamespace(holds=True), SimpleNamespace(holds=holds)]
    )
    assert main(["bench", "parity"]) == (0 if holds else 1)


@pytest.mark.parametrize("arguments", [
    ["evaluate", "edits", "--n", "0"], ["evaluate", "edits", "--theta", "1.5"], ["evaluate", "describe", "--n", "-1"],
    ["bench", "inversion", "--n", "0"], ["evaluate", "tiny", "--folder", "/nowhere/at/all"],
])  # fmt: skip
def test_what_cannot_be_measured_is_said_in_a_sentence(capsys, arguments):
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("unclip: ") and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(0, 0), (130, 130), (KeyboardInterrupt, 130), (OSError("full"), 1), (FloatingPointError("the loss"), 1)],
)
def test_a_training_ends_with_the_exit_code_of_its_end(monkeypatch, outcome, code):
    def end(*_):
        if isinstance(outcome, int):
            return outcome
        raise outcome

    monkeypatch.setattr(run, "train_own", end)
    assert main(["train", "clip", "--data", "d", "--config", "c", "--output", "o"]) == code


@pytest.mark.parametrize(("arguments", "unused"), [
    (["evaluate", "describe", "--output", "there"], "describe has no use for --output; it takes --folder, --json,"),
    (["evaluate", "tiny", "--theta", "0.2", "--inverted"], "tiny has no use for --theta, --inverted;"),
    (["evaluate", "edits", "--batch", "4", "--model", "bundled"], "edits has no use for --model, --batch;"),
    (["evaluate", "--model", "m", "--data", "d", "--theta", "0.2"], "with --model and --data has no use for --theta;"),
    (["bench", "speed", "--steps", "3"], "speed has no use for --steps;"),
    (["bench", "tiny", "--size", "full"], "tiny has no use for --size; it takes --dtype, --json, --repeats"),
])  # fmt: skip
def test_an_option_that_would_change_nothing_is_refused(calls, capsys, arguments, unused):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert unused in capsys.readouterr().err and calls == []


def test_every_option_is_of_use_to_some_measure():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for add, uses in ((measuring.add_evaluate, measuring.EVALUATE_USES), (measuring.add_bench, measuring.BENCH_USES)):
        add(commands)
        command = commands.choices[add.__name__.removeprefix("add_")]
        named = {action.dest for action in command._actions} - {"help", "model"}
        assert named == set().union(*uses.values())
