"""`unclip bench tiny`: what it prints of each stage, and the phases of a cold start."""

import json

import pytest

from unclip.unclip_core.bench import tiny
from unclip.unclip_core.bench.memory import peak_gib
from unclip.unclip_core.bench.speed.cold import cold_seconds

STAGES = ["clip", "prior", "decoder", "rerank", "upscale", "all"]


@pytest.mark.slow
def test_every_stage_is_timed_and_they_sum_up(monkeypatch, capsys):
    monkeypatch.setattr(tiny, "cold_seconds", lambda repeats, model: {"all": 3.0})
    figures = tiny.bench_tiny(repeats=1, batch=2, as_json=True, device="cpu", model="shapes")
    assert json.loads(capsys.readouterr().out) == figures
    for seconds in (figures["seconds"], figures["batch_seconds"]):
        assert list(seconds) == STAGES and min(seconds.values()) > 0
        assert seconds["all"] == pytest.approx(sum(seconds[stage] for stage in STAGES[:-1]))
    assert figures["batch_over_one"] == figures["batch_seconds"]["all"] / figures["seconds"]["all"]
    assert 0.1 < figures["peak_memory_gib"] <= peak_gib() < 64
    assert figures["model"] == "shapes" and figures["side"] == 256
    assert figures["device"] == "cpu" and figures["peak_device_gib"] is None


def test_the_default_is_what_people_meet(monkeypatch):
    """The bundled model of things, warm and cold: its stages are read, and the fresh process is told of it."""
    asked = []
    monkeypatch.setattr(tiny, "cold_seconds", lambda repeats, model: asked.append(model) or {"all": 3.0})
    monkeypatch.setattr(tiny, "_median_stages", lambda run, repeats: {"all": 1.0})
    figures = tiny.bench_tiny(device="cpu")
    assert figures["model"] == "things" and asked == ["things"] and figures["side"] == 256
    assert tiny.bench_tiny(device="cpu", cold=0)["cold_seconds"] == {} and asked == ["things"]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["things", "shapes"])
def test_the_phases_of_a_cold_start_sum_up(model):
    seconds = cold_seconds(repeats=1, model=model)
    assert list(seconds) == ["interpreter", "torch", "pack", "load", "draw", "all"] and min(seconds.values()) > 0
    assert seconds["all"] == pytest.approx(sum(value for name, value in seconds.items() if name != "all"))
