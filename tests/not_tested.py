"""Skipping aloud: what a machine cannot test stands in red at the end of the report (conftest.py)."""

import pytest


def skip(what, reason):
    """Skip the test that runs; `what` was not tested for this reason."""
    pytest.skip(f"NOT TESTED: {what}: {reason}")
