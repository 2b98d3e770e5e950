"""`unclip bench train`: what it measures of each way, at a tiny size on a CPU."""

import json

import pytest
import torch
from torch import nn

from unclip.unclip_core import fresh_process
from unclip.unclip_core.train import speed

ASKED = {"size": "tiny", "batch": 2, "steps": 2, "images": 5, "optimizer": "adamw"}


@pytest.mark.slow
def test_each_way_trains_on_files_and_without(capsys):
    figures = speed.bench_train(**ASKED, device="cpu", as_json=True)
    assert json.loads(capsys.readouterr().out) == figures
    assert list(figures["ways"]) == ["plain", "channels_last"] and figures["workers"] == 0
    plain, last = figures["ways"].values()
    for found in (plain, last):
        assert min(found[name] for name in ("with_data", "on_device", "without", "first")) > 0
        assert found["peak_device_gib"] is None
    assert 0 < plain["loss"] < 10 and last["loss"] == plain["loss"]  # a CPU has no such ways


def test_each_process_is_told_its_way_and_device(monkeypatch):
    told = {}

    class Done:
        returncode, stdout = 0, "{}"

    def run(command, env, **_):
        told[json.loads(command[-1])["way"]] = env.get("UNCLIP_PLAIN"), env["ACCELERATE_TORCH_DEVICE"]
        return Done

    monkeypatch.setattr(fresh_process.subprocess, "run", run)
    monkeypatch.delenv("UNCLIP_PLAIN", raising=False)
    for way in speed.WAYS:
        speed._process({"way": way, "device": "cuda:1"})
    plain = {"plain": "1", "channels_last": None, "compiled": "1", "tuned": None}
    assert told == {way: (value, "cuda:1") for way, value in plain.items()}


def test_time_counts_from_behind_the_warm_steps(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    timed = speed.Timed(speed.Repeated([{"x": torch.zeros(1)}]), 3, torch.device("cpu"))
    seen = []
    for _ in timed.steps(0, speed.WARM + 4):
        seen.append(len(timed.times))
    assert seen == [1] + [2] * (speed.WARM - 1) + [3] * 3 + [4]


def test_the_compiled_net_is_channels_last(monkeypatch):
    asked = []
    monkeypatch.setattr(nn.Module, "compile", lambda net: asked.append(net))
    net = nn.Sequential(nn.Conv2d(2, 2, 3))
    speed.compile_net(net)
    assert asked == [net] and net[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"steps": 0}, {"images": -1}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must be 1 or more"):
        speed.bench_train(**ASKED | wrong, device="cpu")
