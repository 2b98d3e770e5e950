"""How much memory a measurement has taken."""

import resource
import sys


def peak_gib() -> float:
    """Return the most memory that this process has held in RAM so far, in GiB (its peak resident set size)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB
