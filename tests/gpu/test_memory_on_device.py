"""Where weights lie and in which dtype, what happens when memory runs out, and that many runs leave nothing behind."""

import gc
import logging
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from offline import apart, drawn, read, with_inputs

from unclip.nodes import defaults, host
from unclip.nodes.decoder import UnclipDecoderSample
from unclip.nodes.loaders import UnclipLoadModel
from unclip.nodes.sockets import EmbeddingValue, LateValue
from unclip.unclip_core.weights import devices

pytestmark = pytest.mark.gpu

RUNS, SETTLED = 20, 8
GROWTH = 16  # MiB of the device's memory that the allocator may keep more of
HOST_GROWTH = 96  # MiB of the process
FEW = 4


@pytest.fixture
def parts(running):
    """The parts of the bundled model of shapes, as the loader gives them: clip, prior, decoder, upsampler."""
    values = UnclipLoadModel().run("bundled (shapes)")
    return [value.value if isinstance(value, LateValue) else value for value in values]


def on(part):
    return {parameter.device.type for parameter in part.module.parameters()}


def allocated(device):
    """MiB of the device that tensors hold; 0 of a CPU."""
    gc.collect()
    devices.free_cache(device)
    return torch.cuda.memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def test_the_loaders_auto_is_the_devices_own_dtype(parts, device):
    for value in parts[1:]:
        dtypes = {parameter.dtype for parameter in value.part.module.parameters()}
        assert dtypes == {devices.own_dtype(device)}


def test_a_part_is_on_the_device_while_its_stage_runs(parts, device):
    before = allocated(device)
    for value in parts:
        assert on(value.part) == {"cpu"}
        with host.loaded(value) as part:
            assert on(part) == {device.type}
        assert on(value.part) == {"cpu"}
    assert allocated(device) == pytest.approx(before, abs=1)


def images(decoder, count):
    embedding = EmbeddingValue(torch.randn(1, 192, generator=torch.Generator().manual_seed(2)), decoder.family, "prior")
    returned = UnclipDecoderSample().run(decoder, embedding, seed=1, steps=2, batch_size=count)
    return (returned["result"] if isinstance(returned, dict) else returned)[0]


@contextmanager
def room_for(count, decoder, device):
    """Memory for so many images at once, and for no batch of `IMAGES_AT_ONCE`."""
    if device.type == "cuda":
        fits, too_much = (reserved(decoder, number, device) for number in (count, defaults.IMAGES_AT_ONCE))
        assert fits < too_much
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((fits + too_much) / 2 / whole, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    else:
        handle = decoder.part.net.register_forward_pre_hook(refusing(2 * count))
        try:
            yield
        finally:
            handle.remove()


def reserved(decoder, count, device):
    """The most bytes that the allocator holds while so many images are drawn."""
    allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    images(decoder, count)
    return torch.cuda.max_memory_reserved(device)


def refusing(rows):
    """A hook that acts an accelerator whose memory so many rows fill."""

    def hook(net, inputs):
        if len(inputs[0]) > rows:
            raise torch.OutOfMemoryError(f"{len(inputs[0])} rows do not fit")

    return hook


def test_a_batch_that_does_not_fit_is_halved_and_finished(parts, device, caplog):
    decoder = parts[2]
    count = defaults.IMAGES_AT_ONCE if device.type != "cpu" else 12
    whole = images(decoder, count)
    with room_for(FEW, decoder, device), caplog.at_level(logging.WARNING, logger="unclip"):
        halved = images(decoder, count)
    assert any("out of memory, trying again with" in message for message in caplog.messages)
    assert halved.shape == whole.shape and float((halved - whole).abs().mean()) < 0.01


def resident():
    """MiB of this process; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def test_two_models_in_turn_leave_no_growth(device, tmp_path):
    """The model is read anew in each run, as the headless runner does."""
    small = {"steps": 1, "candidates": 1, "keep": 1} if device.type == "cpu" else {}
    held, sizes, seen = [], [], {}
    for turn in range(RUNS):
        name = ("things", "shapes")[turn % 2]
        prompt = with_inputs(read("text_to_image"), model=f"bundled ({name})", text="a red circle", **small)
        found, _ = drawn(prompt, tmp_path / str(turn), device, tmp_path)
        assert apart(found, seen.setdefault(name, found)) < 0.5  # the same from the first run to the last
        held.append(allocated(device))
        sizes.append(resident())
    print("MiB of the device after each run:", held, "of the process:", sizes)
    assert np.abs(seen["things"][0] - seen["shapes"][0]).mean() > 1
    assert max(held[SETTLED:]) - max(held[:SETTLED]) < GROWTH, held
    if sizes[0] is not None:
        assert max(sizes[SETTLED:]) - max(sizes[:SETTLED]) < HOST_GROWTH, sizes
