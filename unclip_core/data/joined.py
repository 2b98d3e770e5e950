"""Several collections as one."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from .fingerprint import digest
from .samples import Collection, Sample


class Joined:
    """The concatenation of some collections."""

    def __init__(self, parts: Sequence[Collection]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))
        self.passed_over = {name: reason for part in parts for name, reason in part.passed_over.items()}

    def __len__(self) -> int:
        return self._ends[-1]

    def name(self, index: int) -> str:
        """See `Collection.name`."""
        part, place = self._place(index)
        return part.name(place)

    def read(self, index: int, captions: bool = True) -> Sample:
        """See `Collection.read`."""
        part, place = self._place(index)
        return part.read(place, captions)

    def caption(self, index: int) -> str:
        """See `Collection.caption`."""
        part, place = self._place(index)
        return part.caption(place)

    def captions(self, index: int) -> list[str]:
        """See `Collection.captions`."""
        part, place = self._place(index)
        return part.captions(place)

    def fingerprint(self) -> str:
        """See `Collection.fingerprint`: of the parts' fingerprints."""
        return digest(part.fingerprint() for part in self._parts)

    def _place(self, index: int) -> tuple[Collection, int]:
        number = bisect_right(self._ends, index)
        part = self._parts[number]
        return part, index - (self._ends[number] - len(part))
