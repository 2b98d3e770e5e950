"""The device that these tests are for: $UNCLIP_GPU_TEST_DEVICE, which `make test-gpu` sets to the machine's best.

On "cpu" their bodies run at a small size, so that a mistake in them is found without a card; what only a card has (its
own dtype, a cap on its memory) is left out or acted there.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from not_tested import GPU, skip

from unclip.nodes import host
from unclip.unclip_core.weights import devices

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "comfyui")]


@pytest.fixture(scope="session")
def device():
    """The device to test; the test is skipped where there is none."""
    name = os.environ.get(GPU)
    if name is None:
        skip("A GPU", f"`make test-gpu` tests it, or {GPU} that names a device")
    chosen = devices.choose_device(name)
    if chosen.type == "cpu" and name == devices.AUTO:
        skip("A GPU", f"this machine has none that torch can use; {GPU}=cpu runs the tests' bodies on the CPU")
    return chosen


@pytest.fixture
def running(device):
    """Nodes run on the device."""
    with host.running_on(str(device)) as chosen:
        yield chosen


@pytest.fixture
def exact():
    """float32 products and convolutions are computed in float32, and not in ten bits of it."""
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed
