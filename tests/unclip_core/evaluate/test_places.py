"""Evaluations draw in the device's own dtype, compare in float32, and say what they ran on."""

import pytest
import torch

from unclip.unclip_core.bench import inversion
from unclip.unclip_core.evaluate import measurer, shapes
from unclip.unclip_core.evaluate.generation import Draw
from unclip.unclip_core.evaluate.measurer import Plan
from unclip.unclip_core.families import loading
from unclip.unclip_core.families.loading import SHAPES, placed_model
from unclip.unclip_core.models import StageSettings
from unclip.unclip_core.pipelines.settings import Settings
from unclip.unclip_core.weights import devices

QUICK = Settings(StageSettings(1, 2.0), StageSettings(1, 1.0), StageSettings(1, 1.0))


@pytest.fixture
def halves(monkeypatch):
    """A machine whose device computes in bfloat16 by itself."""
    for module in (devices, loading, measurer):
        monkeypatch.setattr(module, "own_dtype", lambda device: torch.bfloat16)


def dtypes(part):
    return {parameter.dtype for parameter in part.module.parameters()}


def test_a_placed_model_is_in_the_devices_own_dtype_or_the_one_asked_for(halves):
    model = placed_model(SHAPES, "cpu")
    assert dtypes(model.prior) == dtypes(model.decoder) == {torch.bfloat16} and dtypes(model.clip) == {torch.float32}
    assert dtypes(placed_model(SHAPES, "cpu", dtype=torch.float32).prior) == {torch.float32}


def test_an_evaluation_draws_in_that_dtype_and_compares_in_float32(halves):
    model, _ = Plan(str(SHAPES), "nowhere", Draw(), device="cpu").open()
    assert dtypes(model.prior) == {torch.bfloat16} and dtypes(model.clip) == {torch.float32}


def test_the_figures_say_what_they_were_computed_on(halves, capsys):
    figures = shapes.evaluate_tiny(1, settings=QUICK, device="cpu")
    assert (figures["device"], figures["dtype"]) == ("cpu", "bf16")


def test_what_measures_a_method_and_no_machine_stays_in_float32(halves, capsys, monkeypatch):
    """Rounding would be measured in place of the inversion."""
    seen = []
    monkeypatch.setattr(inversion, "encode_image", lambda clip, images: None)
    monkeypatch.setattr(inversion, "_measure", lambda model, *_: seen.append(dtypes(model.decoder)))
    monkeypatch.setattr(inversion, "_table", lambda rows, count: "")
    inversion.bench_inversion(1, device="cpu")
    assert seen[0] == {torch.float32}
