"""How much memory a measurement has taken."""

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def peak_gib() -> float:
    """Return the most memory that this process has held in RAM so far, in GiB (its peak resident set size).

    Raises:
        OSError: Windows does not say it.
    """
    if sys.platform == "win32":
        return _peak_working_set() / 2**30
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of the Windows API."""

    _fields_ = [
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 7),
    ]


def _peak_working_set() -> int:
    """In bytes; Windows' name for the resident set."""
    kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]  # of Windows alone
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Counters), ctypes.c_uint32)
    counters = _Counters(cb=ctypes.sizeof(_Counters))
    if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        raise OSError(ctypes.get_last_error(), "Windows does not say how much memory was used")  # type: ignore[attr-defined]  # as above
    return int(counters.PeakWorkingSetSize)


def apart(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own: what it leaves behind would count to the peaks that are measured here later.

    It is freed, but the allocator may keep the pages: 2 GB of them after Kandinsky's random weights were written.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()
