"""Skipping aloud: what a machine cannot test stands in red at the end of the report (conftest.py)."""

import pytest

GPU = "UNCLIP_GPU_TEST_DEVICE"
"""Names the device of tests marked `gpu`, which `make test-gpu` sets; without it accelerators are hidden from all."""


def skip(what, reason):
    """Skip the test that runs; `what` was not tested for this reason."""
    pytest.skip(f"NOT TESTED: {what}: {reason}")
