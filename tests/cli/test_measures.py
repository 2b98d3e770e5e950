"""`unclip evaluate`, `unclip bench` and `unclip train` as a user types them: what they hand on, and exit codes."""

from types import SimpleNamespace

import pytest

from unclip.__main__ import main
from unclip.unclip_core.bench import inversion as bench_inversion
from unclip.unclip_core.bench import karlo
from unclip.unclip_core.bench import tiny as bench
from unclip.unclip_core.bench.parity import table as parity
from unclip.unclip_core.bench.speed import cold, steps
from unclip.unclip_core.bench.speed import table as speed
from unclip.unclip_core.evaluate import describe as described
from unclip.unclip_core.evaluate import edits, evaluation, shapes
from unclip.unclip_core.evaluate.generation import Draw
from unclip.unclip_core.train import run
from unclip.unclip_core.train import speed as training


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
        (training, "bench_train"),
    ):
        monkeypatch.setattr(module, name, lambda *values, name=name, **named: found.append((name, values, named)))
    return found


def test_the_ways_of_edits_are_handed_on(calls):
    assert main(["evaluate", "edits", "--n", "7", "--theta", "0.2", "0.35", "--inverted", "--json"]) == 0
    assert calls == [
        ("evaluate_edits", (7, 0, None, True), {"thetas": [0.2, 0.35], "inverted": True, "device": "auto"})
    ]


def test_each_measure_has_its_own_number_of_scenes(calls):
    assert main(["evaluate", "edits"]) == main(["evaluate", "describe"]) == 0
    assert [(name, values[0]) for name, values, _ in calls] == [("evaluate_edits", 200), ("evaluate_describe", 500)]
    assert calls[0][2]["thetas"] == edits.THETAS


def test_a_bench_gets_its_own_options(calls):
    assert main(["bench", "inversion", "--n", "4", "--folder", "there"]) == 0
    assert main(["bench", "tiny", "--dtype", "bf16", "--device", "cpu"]) == 0
    assert main(["bench", "speed", "--batches", "1", "--stage-steps", "4", "4", "2", "--offload"]) == 0
    assert main(["bench", "train", "--dtype", "bf16", "--ways", "compiled", "--workers", "3"]) == 0
    assert calls == [
        ("bench_inversion", (4, "there", False), {"device": "auto"}),
        ("bench_tiny", (5,), {"as_json": False, "dtype": "bf16", "device": "cpu", "model": "things", "cold": 3}),
        (
            "bench_speed",
            ("small", ["fp32", "bf16"], [1], 3, None, False, None, [4, 4, 2], "auto", "karlo"),
            {"offload": True, "profile": False, "plain": False},
        ),
        (
            "bench_train",
            ("small", "bf16", 256, 60, 2048, 3, ["compiled"], "auto"),
            {"device": "auto", "as_json": False},
        ),
    ]


@pytest.mark.parametrize(
    ("measure", "function"),
    [
        (["evaluate", "tiny"], (shapes, "evaluate_tiny")), (["evaluate", "describe"], (described, "evaluate_describe")),
        (["evaluate", "edits"], (edits, "evaluate_edits")), (["bench", "karlo"], (karlo, "bench_karlo")),
        (["bench", "steps"], (steps, "bench_steps")), (["bench", "inversion"], (bench_inversion, "bench_inversion")),
        (["bench", "tiny"], (bench, "bench_tiny")), (["bench", "train"], (training, "bench_train")),
    ],
)  # fmt: skip
def test_every_measure_that_runs_nets_runs_them_where_it_is_told(monkeypatch, capsys, measure, function):
    found = []
    real = getattr(*function)
    monkeypatch.setattr(*function, lambda *values, **named: found.append(named["device"]))
    assert main([*measure, "--device", "cpu"]) == 0
    assert found == ["cpu"]
    monkeypatch.setattr(*function, real)
    assert main([*measure, "--device", "cuda:99"]) == 1
    assert "cuda:99" in capsys.readouterr().err


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

    monkeypatch.setattr(run, "train", end)
    assert main(["train", "clip", "--data", "d", "--config", "c", "--output", "o"]) == code


@pytest.mark.parametrize(("line", "command", "unknown"), [
    ("evaluate describe --output there", "evaluate describe", "--output there"),
    ("evaluate --output edits describe", "evaluate describe", "--output edits"),
    ("evaluate tiny --theta 0.2 --inverted", "evaluate tiny", "--theta 0.2 --inverted"),
    ("evaluate edits --batch 4 --model bundled", "evaluate edits", "--batch 4 --model bundled"),
    ("evaluate --model m --data d --theta 0.2", "evaluate", "--theta"),
    ("evaluate --model m --data d --folder f", "evaluate", "--folder"),
    ("bench speed --steps 3", "bench speed", "--steps 3"),
    ("bench --size full tiny", "bench tiny", "--size full"),
    ("bench parity --plot p.png", "bench parity", "--plot p.png"),
])  # fmt: skip
def test_a_measure_refuses_options_that_would_change_nothing(calls, capsys, line, command, unknown):
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    said = capsys.readouterr().err
    assert said.endswith(f"unclip {command}: error: unrecognized arguments: {unknown}\n") and calls == []
    assert said.startswith(f"usage: unclip {command} ")


@pytest.mark.parametrize(("line", "said"), [
    ("bench --json", "the following arguments are required: MEASURE"), ("bench", "arguments are required: MEASURE"),
    ("evaluate colours", "invalid choice: 'colours'"), ("bench --json colours", "invalid choice: 'colours'"),
])  # fmt: skip
def test_an_unknown_measure_or_none_is_refused(capsys, line, said):
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [
    ["--n", "7", "--theta", "0.2", "0.4", "--json", "edits"], ["--json", "edits", "--theta", "0.2", "0.4", "--n", "7"],
    ["--n=7", "edits", "--json", "--theta", "0.2", "0.4"], ["--th", "0.2", "0.4", "--n", "7", "edits", "--js"],
])  # fmt: skip
def test_options_stand_before_or_behind_the_measures_name(calls, arguments):
    assert main(["evaluate", *arguments]) == 0
    assert calls == [
        ("evaluate_edits", (7, 0, None, True), {"thetas": [0.2, 0.4], "inverted": False, "device": "auto"})
    ]


def test_a_measures_name_as_the_value_of_an_option_is_a_value(calls):
    assert main(["evaluate", "--folder", "tiny", "describe"]) == 0
    assert main(["bench", "--folder", "speed", "--n", "4", "inversion"]) == 0
    auto = {"device": "auto"}
    assert calls == [
        ("evaluate_describe", (500, 0, "tiny", False), auto), ("bench_inversion", (4, "speed", False), auto)
    ]  # fmt: skip


def test_without_a_measures_name_it_is_any_model_on_any_images(calls, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate_model", lambda *values, **named: calls.append((values, named)))
    line = "--data d --small --lora a.safetensors 0.5 --model m --n 9 --from pictures --seed 3 --json"
    assert main(["evaluate", *line.split()]) == 0
    ((values, named),) = calls
    assert values == ("m", "d") and named["how"] == Draw("pictures", True, 3, 8)
    assert (named["count"], named["loras"], named["neighbours"]) == (9, [("a.safetensors", 0.5)], 3)
    assert named["as_json"] is True and named["output"] is None


def test_a_strength_that_is_no_number_is_said(capsys):
    assert main(["evaluate", "--model", "m", "--data", "d", "--lora", "a.safetensors", "much"]) == 1
    assert "must be a number, not 'much'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tiny", "--repeats", "0"], "--repeats must be 1 or more and --cold 0 or more, got 0 and 3"),
        (["tiny", "--cold", "-1"], "--repeats must be 1 or more and --cold 0 or more, got 5 and -1"),
        (["speed", "--rounds", "0"], "--rounds, --batches and --stage-steps must be 1 or more"),
        (["speed", "--batches", "1", "0"], "--rounds, --batches and --stage-steps must be 1 or more"),
        (["speed", "--stage-steps", "4", "0", "2"], "--rounds, --batches and --stage-steps must be 1 or more"),
        (["train", "--steps", "0"], "--batch, --steps and --images must be 1 or more"),
    ],
)
def test_a_number_that_measures_nothing_is_refused(capsys, arguments, said):
    assert main(["bench", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_a_process_that_fails_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(cold, "PROGRAM", "raise SystemExit('no memory is left')")
    monkeypatch.setattr(bench, "bench_tiny", lambda *_, **options: cold.cold_seconds(options["cold"]))
    assert main(["bench", "tiny", "--cold", "1"]) == 1
    assert capsys.readouterr().err == "unclip: A fresh process failed with exit code 1: no memory is left\n"
