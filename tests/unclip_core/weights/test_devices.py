"""Which device is taken, and what it computes in, on machines that are made up."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from unclip.unclip_core.weights import devices


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with these accelerators: kind -> how many."""

    def with_accelerators(**counts):
        for kind in devices.KINDS:
            count = counts.get(kind, 0)
            made = SimpleNamespace(
                is_available=lambda count=count: count > 0,
                device_count=lambda count=count: count,
                get_device_name=lambda device: "Some Card",
            )
            monkeypatch.setattr(torch, kind, made)
        monkeypatch.setattr(torch.backends.mps, "is_available", torch.mps.is_available)

    return with_accelerators


def test_tests_mean_the_same_on_every_machine():
    """A card is for `make test-gpu`."""
    assert devices.available() == ["cpu"]


@pytest.mark.slow
def test_so_do_the_processes_that_they_start():
    program = "import torch; print(torch.cuda.is_available())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False\n"


@pytest.mark.parametrize(
    ("counts", "best"), [({}, "cpu"), ({"mps": 1}, "mps"), ({"xpu": 1}, "xpu"), ({"cuda": 2, "xpu": 1}, "cuda")]
)
def test_auto_is_the_best_that_there_is(machine, counts, best):
    machine(**counts)
    assert devices.choose_device() == torch.device(best)
    assert devices.choose_device("cpu") == torch.device("cpu")


def test_torch_before_2_6_is_asked_in_its_own_way(machine, monkeypatch):
    """It has no torch.mps.is_available; before 2.3 there is no torch.xpu, before 2.5 no torch.OutOfMemoryError."""
    out_of_memory = torch.cuda.OutOfMemoryError("CUDA out of memory")
    assert devices.is_out_of_memory(out_of_memory)
    monkeypatch.delattr(torch, "OutOfMemoryError")
    assert devices.is_out_of_memory(out_of_memory) and not devices.is_out_of_memory(RuntimeError("another"))
    machine(mps=1)
    monkeypatch.delattr(torch.mps, "is_available")
    assert devices.available() == ["mps", "cpu"]
    monkeypatch.delattr(torch, "xpu")
    assert devices.available() == ["mps", "cpu"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.available() == ["cpu"]


def test_a_device_can_be_named_by_its_number(machine):
    machine(cuda=2)
    assert devices.choose_device("cuda:1") == torch.device("cuda", 1)
    assert devices.describe_device(torch.device("cuda", 1)) == "cuda:1 (Some Card)"
    assert devices.describe_device(torch.device("cpu")) == "cpu"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cuda:2", "There is no 'cuda:2': this machine has 2 of cuda"),
        ("mps", "no device 'mps' that torch can use. It has: cuda, cpu"),
        ("meta", "no device 'meta'"),
        ("gpu", "'gpu' is no device. Take auto or one of: cuda, cpu"),
        ("", "'' is no device"),
    ],
)
def test_a_device_that_is_not_there_is_said_with_those_that_are(machine, name, said):
    machine(cuda=2)
    with pytest.raises(ValueError, match=said):
        devices.choose_device(name)


@pytest.mark.parametrize(
    ("major", "name", "dtype"),
    [
        (9, "NVIDIA H100", torch.float16),
        (8, "NVIDIA GeForce RTX 3060", torch.float16),
        (7, "NVIDIA GeForce RTX 2080", torch.float16),
        (7, "NVIDIA GeForce GTX 1660 Ti", torch.float32),
        (6, "NVIDIA GeForce GTX 1080", torch.float32),
    ],
)
def test_nvidias_compute_in_fp16_where_that_is_sound_and_fast(monkeypatch, major, name, dtype):
    """What ComfyUI's should_use_fp16 says of these cards."""
    card = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(major=major, name=name))
    monkeypatch.setattr(torch, "cuda", card)
    monkeypatch.setattr(torch.version, "hip", None)
    assert devices.own_dtype(torch.device("cuda")) == dtype


@pytest.mark.parametrize("halves", [True, False])
def test_other_devices_compute_in_what_they_can(monkeypatch, halves):
    card = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(has_fp16=halves))
    monkeypatch.setattr(torch, "xpu", card)
    assert devices.own_dtype(torch.device("xpu")) == (torch.float16 if halves else torch.float32)
    assert devices.own_dtype(torch.device("mps")) == torch.float16
    assert devices.own_dtype(torch.device("cpu")) == torch.float32


def test_out_of_memory_is_known_of_every_device():
    assert devices.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert devices.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert not devices.is_out_of_memory(RuntimeError("shapes do not fit"))


def test_a_peak_is_forgotten_before_anything_was_on_the_device(monkeypatch):
    """torch refuses a device by its number until somebody has asked for one."""
    done = []
    card = SimpleNamespace(init=lambda: done.append("init"), reset_peak_memory_stats=lambda device: done.append("peak"))
    monkeypatch.setattr(torch, "cuda", card)
    devices.forget_peak(torch.device("cuda:1"))
    assert done == ["init", "peak"]


def test_a_cpu_has_no_memory_of_a_device_and_nothing_to_wait_for():
    cpu = torch.device("cpu")
    devices.synchronise(cpu)
    devices.free_cache(cpu)
    devices.forget_peak(cpu)
    assert devices.device_peak_gib(cpu) is None
