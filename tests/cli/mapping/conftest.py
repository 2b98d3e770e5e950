"""Ray for the tests of this folder."""

import os
import sys

import pytest


@pytest.fixture(scope="module")
def ray_environment():
    """Ray's workers are processes of their own: they find this package, and do not stand back behind all others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        patch.setenv("RAY_worker_niceness", "0")
        yield


@pytest.fixture(scope="module")
def ray(ray_environment):
    """One Ray for all tests of a file but those that see it start and stop."""
    import ray

    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
