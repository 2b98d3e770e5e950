"""How much memory a measurement has taken."""

import os

import pytest

from unclip.unclip_core.bench.memory import apart, peak_gib


def test_a_call_apart_runs_in_a_process_of_its_own_and_hands_on_what_comes_of_it():
    assert apart(os.getpid) != os.getpid()
    assert apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        apart(os.listdir, "nowhere")
    assert 0 < peak_gib() < 64
