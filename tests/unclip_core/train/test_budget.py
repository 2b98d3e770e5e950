"""A training's length in steps and in time, what is said of it meanwhile, and what waits for the device."""

import io
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unclip.unclip_core.train.budget import Budget
from unclip.unclip_core.train.config import Training, config_from_dict
from unclip.unclip_core.train.engine import Engine, Hooks
from unclip.unclip_core.train.optimizer import cosine_lr
from unclip.unclip_core.train.processes import OneProcess
from unclip.unclip_core.train.progress import Progress, duration
from unclip.unclip_core.train.running_means import RunningMeans
from unclip.unclip_core.train.state import RunFiles, read_log

TIMED = Training(minutes=1.0, lr=0.02, warmup=0, save_minutes=1e9, log_every=1, ema=0.9, optimizer="adamw")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Numbers:
    """Batches each of which takes so many seconds of a clock; `fatal` ends with an error."""

    def __init__(self, clock, seconds, fatal=10**9):
        self.clock, self.seconds, self.fatal = clock, seconds, fatal

    def steps(self, first, last):
        for step in range(first, last):
            if step == self.fatal:
                raise RuntimeError("killed")
            self.clock.now += self.seconds
            yield [{"x": torch.randn(4, 3, generator=torch.Generator().manual_seed(step))}]


class Sums(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, 1)

    def forward(self, batch):
        return {"loss": F.mse_loss(self.net(batch["x"]), batch["x"].sum(dim=1, keepdim=True))}


def engine_of(training, folder, clock, source, hooks=None):
    return Engine(Sums(), source, training, RunFiles(folder), OneProcess(), hooks or Hooks(lambda _: None), clock)


def test_a_training_ends_with_its_time_and_the_cosine_with_it(tmp_path):
    clock = Clock()
    engine = engine_of(TIMED, tmp_path, clock, Numbers(clock, 6.0))
    assert engine.run() and engine.step == 10
    rates = [line["lr"] for line in read_log(RunFiles(tmp_path))]
    # After step n, 6 n of 60 s are over; the rate of a step is that of what was over before it.
    assert rates == pytest.approx([cosine_lr(step, 10, 0.02, 0) for step in range(10)])


def test_whichever_of_steps_and_time_comes_first_ends_it(tmp_path):
    clock = Clock()
    engine = engine_of(replace(TIMED, steps=4), tmp_path / "a", clock, Numbers(clock, 6.0))
    assert engine.run() and engine.step == 4
    assert read_log(RunFiles(tmp_path / "a"))[-1]["lr"] == pytest.approx(cosine_lr(3, 4, 0.02, 0))
    engine = engine_of(replace(TIMED, steps=400), tmp_path / "b", clock, Numbers(clock, 20.0))
    assert engine.run() and engine.step == 3


def test_time_goes_on_where_it_was(tmp_path):
    clock = Clock()
    first = engine_of(replace(TIMED, save_minutes=0.0), tmp_path, clock, Numbers(clock, 6.0, fatal=7))
    with pytest.raises(RuntimeError, match="killed"):
        first.run()
    clock.now += 1e6  # nothing that lies between two runs counts
    second = engine_of(TIMED, tmp_path, clock, Numbers(clock, 6.0))
    assert second.step == 7 and second.budget.seconds == pytest.approx(42.0)
    assert second.run() and second.step == 10
    third = engine_of(TIMED, tmp_path, clock, Numbers(clock, 6.0))
    assert third.run() and third.step == 10
    longer = engine_of(replace(TIMED, minutes=1.2), tmp_path, clock, Numbers(clock, 6.0))
    assert longer.run() and longer.step == 12


def test_steps_or_minutes_are_needed():
    assert config_from_dict({"training": {"minutes": 5}}, "clip").training.minutes == 5.0
    with pytest.raises(ValueError, match=r"\['training.steps'\] are missing: name steps, or minutes"):
        config_from_dict({"training": {"lr": 0.1}}, "clip")
    for wrong in ({"minutes": 0}, {"minutes": -1}, {"minutes": float("nan")}, {"minutes": float("inf")}):
        with pytest.raises(ValueError, match=r"training\.(steps|minutes) must be"):
            config_from_dict({"training": wrong}, "clip")
    with pytest.raises(ValueError, match="training.lr is too large"):
        config_from_dict({"training": {"steps": 1, "lr": 10**400}}, "clip")


def test_what_is_left_is_the_shorter_of_the_two():
    clock = Clock()
    budget = Budget(replace(TIMED, steps=100), clock)
    budget.start(0.0)
    clock.now += 10
    budget.tick()
    assert budget.seconds_left(50) == pytest.approx(10.0) and budget.seconds_left(1) == pytest.approx(50.0)


def test_lines_come_at_the_start_and_every_half_minute_without_a_terminal():
    clock, lines = Clock(), []
    with Progress("train prior", "step", 100, 20, tell=lines.append, clock=clock) as progress:
        for step in range(21, 61):
            clock.now += 1
            progress.update(step, lambda: {"loss": 0.125}, lambda: 5400.0)
    assert lines[0] == "train prior: step 20 of 100 at the start"
    assert lines[1] == "train prior: step 50 of 100, loss 0.125, 1 steps/s, about 1.5 h left"
    assert lines[-1] == "train prior: step 60 of 100 at the end" and len(lines) == 3
    assert duration(89) == "89 s" and duration(600) == "10 min"


def test_lines_go_to_stderr_and_a_closed_one_is_no_reason_to_stop(monkeypatch, capsys):
    with Progress("train", "step", None) as progress:
        progress.update(1)
    assert capsys.readouterr().err.splitlines() == ["train: step 0 at the start", "train: step 1 at the end"]
    closed = io.StringIO()
    monkeypatch.setattr("sys.stderr", closed)
    with Progress("train", "step", None) as progress:
        closed.close()
        progress.update(1)


def test_no_step_reads_from_the_device():
    """Between logs nothing is turned into a Python number, which would wait for a GPU."""
    reads = []

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            if func in (torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.__float__, torch.Tensor.__bool__):
                reads.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    means = RunningMeans(OneProcess())
    for step in range(1, 4):
        means.add({"loss": torch.tensor(float(step)).as_subclass(Watched), "norm": torch.tensor(2.0)})
    assert not reads
    means.collect()
    assert means.means() == {"loss": 2.0, "norm": 2.0} and len(reads) == 1


def test_a_measure_is_kept_with_its_step_and_cut_on_resuming(tmp_path):
    clock, measured = Clock(), []

    def measure(step):
        measured.append(step)
        return {"accuracy": 0.5}

    training = replace(TIMED, minutes=0.0, steps=6, sample_every=4)
    hooks = Hooks(lambda _: None, measure=measure)
    assert engine_of(training, tmp_path, clock, Numbers(clock, 1.0), hooks).run()
    assert measured == [4, 6]
    lines = RunFiles(tmp_path).held_out.read_text().splitlines()
    assert len(lines) == 2 and '"accuracy": 0.5' in lines[0]
