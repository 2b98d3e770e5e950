"""How much memory a measurement has taken."""

import ctypes
import os
import runpy
import sys
from types import SimpleNamespace

import pytest

from unclip.unclip_core.bench import memory
from unclip.unclip_core.bench.memory import apart, peak_gib


def test_a_call_apart_runs_in_a_process_of_its_own_and_hands_on_what_comes_of_it():
    assert apart(os.getpid) != os.getpid()
    assert apart(divmod, 7, 2) == (3, 1)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        apart(os.listdir, "nowhere")
    assert 0 < peak_gib() < 64


class ProcessMemory:
    """Windows' function, which fills a structure of 72 bytes: the peak stands at byte 8."""

    def __init__(self, works):
        self.works = works

    def __call__(self, process, counters, size):
        assert (process, size) == (7, 72)
        ctypes.memmove(ctypes.addressof(counters._obj) + 8, (3 * 2**30).to_bytes(8, "little"), 8)
        return self.works


@pytest.fixture
def windows(monkeypatch):
    """Reads the module as on a Windows whose function works, or does not; there is no module `resource`."""

    def read(works):
        def process():
            return 7

        kernel = SimpleNamespace(GetCurrentProcess=process, K32GetProcessMemoryInfo=ProcessMemory(works))
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setitem(sys.modules, "resource", None)
        monkeypatch.setattr(ctypes, "WinDLL", lambda name, use_last_error: kernel, raising=False)
        monkeypatch.setattr(ctypes, "get_last_error", lambda: 5, raising=False)
        return runpy.run_path(memory.__file__)["peak_gib"]

    return read


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_size_t) != 8, reason="the structure is that of 64 bits")
def test_windows_says_its_peak_working_set(windows):
    assert windows(works=True)() == 3.0
    with pytest.raises(OSError, match="Windows does not say"):
        windows(works=False)()
