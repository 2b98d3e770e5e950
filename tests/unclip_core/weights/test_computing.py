"""What nets compute in: the dtype of their weights, but on a CPU that only emulates it float32."""

import pytest
import torch

from unclip.unclip_core.families.loading import SHAPES, placed_model
from unclip.unclip_core.weights import computing

CPU, GPU = torch.device("cpu"), torch.device("cuda")
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def test_float32_and_float64_are_never_emulated():
    assert computing.cpu_computes_in(torch.float32) and computing.cpu_computes_in(torch.float64)


@pytest.mark.parametrize("dtype", HALVES.values())
def test_the_processor_is_asked_and_a_torch_that_cannot_ask_it_emulates(dtype, monkeypatch):
    computing.cpu_computes_in.cache_clear()
    assert computing.cpu_computes_in(dtype) in (True, False)
    computing.cpu_computes_in.cache_clear()
    monkeypatch.setattr(computing, "_QUERIES", {dtype: "_no_such_query"})
    assert not computing.cpu_computes_in(dtype)
    computing.cpu_computes_in.cache_clear()


@pytest.mark.parametrize(("name", "dtype"), HALVES.items())
def test_an_emulated_dtype_is_computed_in_float32_on_a_cpu_alone(name, dtype, emulated):
    assert computing.computing_dtype(dtype, CPU) == computing.dtype_for(torch.zeros(1, dtype=dtype)) == torch.float32
    assert computing.computing_dtype(dtype, GPU) == dtype
    assert computing.computing_dtype(torch.float64, CPU) == torch.float64
    told = f"{name}, computed in fp32: this processor has no {name} instructions"
    assert computing.describe_dtype(dtype, CPU) == told and computing.describe_dtype(dtype, GPU) == name


def test_a_dtype_of_its_own_is_computed_as_it_is(native):
    for name, dtype in HALVES.items():
        assert computing.computing_dtype(dtype, CPU) == dtype and computing.describe_dtype(dtype, CPU) == name


def test_who_places_a_model_hears_of_it_once(caplog, emulated):
    placed_model(SHAPES, "cpu", ("prior",), torch.float16)
    placed_model(SHAPES, "cpu", ("prior",))
    assert caplog.messages == ["Weights in fp16, computed in fp32: this processor has no fp16 instructions."]
