"""How much each server has done of a batch, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .journal import Result

_SHOWN = 3


@dataclass
class Share:
    """One server's share.

    Attributes:
        rows: that are done.
        failed: that ended in an error there.
        first, last: when its first and its last result came, in seconds of the tally's clock.
    """

    rows: int = 0
    failed: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def rate(self) -> float:
        """Results a second between its first and its last one; 0 while that is not known."""
        count, seconds = self.rows + self.failed - 1, self.last - self.first
        return count / seconds if count > 0 and seconds > 0 else 0.0

    def __str__(self) -> str:
        """As in "40 rows, 1 failed, 0.52 rows/s"."""
        said = ["1 row" if self.rows == 1 else f"{self.rows:,} rows"]
        said += [f"{self.failed:,} failed"] if self.failed else []
        said += [f"{self.rate:.2f} rows/s"] if self.rate else []
        return ", ".join(said)


@dataclass
class Tally:
    """The shares of all servers: told of every result of a run."""

    clock: Callable[[], float] = time.monotonic
    shares: dict[str, Share] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Count a result."""
        now = self.clock()
        share = self.shares.setdefault(result.server, Share(first=now))
        share.last = now
        share.rows += not result.error
        share.failed += bool(result.error)

    @property
    def failed(self) -> int:
        """Rows that ended in an error."""
        return sum(share.failed for share in self.shares.values())

    def short(self) -> str:
        """A few words for a progress bar: failures, and the servers that did most."""
        most = sorted(self.shares.items(), key=lambda item: -item[1].rows)
        said = [f"{urlsplit(url).netloc} {share.rate:.2f}/s" for url, share in most[:_SHOWN]]
        said += [f"{len(most) - _SHOWN} more"] if len(most) > _SHOWN else []
        return ", ".join([f"failed={self.failed}", *said])
