"""Which row goes to which server: the state that the workers, one a server, share within one event loop."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .journal import Journal, Result, Submission

LOST_MAX = 5
"""A row that a server has lost so often counts as failed there: it may be what brings the server down."""

RETRIED_FIRST = 1000
"""When so many rows wait for a second server, no new ones are begun: a server that fails all of them has to wait."""

RETURN_WAIT = 60.0
"""Seconds for which a row that failed elsewhere waits for a server that has just gone down."""


@dataclass
class _Server:
    """What is known of one server.

    Attributes:
        up: whether it answers.
        down_since: when it last ceased to.
        unusable: why it takes no further part; "" while it does.
        in_flight: row → its submission there.
        taken_over: ids of prompts there that other servers do meanwhile.
        leaving: whether it gets no more rows, and is gone once those in flight have ended.
    """

    up: bool = True
    down_since: float = 0.0
    unusable: str = ""
    in_flight: dict[int, Submission] = field(default_factory=dict)
    taken_over: list[str] = field(default_factory=list)
    leaving: bool = False

    @property
    def gone(self) -> bool:
        """Whether it has left, and nothing is awaited from it."""
        return self.leaving and not self.in_flight


class Scheduler:
    """Hands rows to servers and collects results: each row waits, is in flight, or is done.

    A row that a server refuses, loses, or that fails there, is offered to the others, and fails for good once every
    server that answers, or did a minute ago, has been tried: a server that lacks a node must not spoil the rows that
    another could do.
    What is in flight on a server that does not answer stays there until another server has nothing else to do.
    """

    def __init__(
        self, rows: Iterable[int], servers: Iterable[str], journal: Journal, on_result: Callable[[Result], None]
    ) -> None:
        self.results: dict[int, Result] = {}
        self._journal, self._on_result = journal, on_result
        self._servers = {server: _Server() for server in servers}
        self._all_down_since = None if self._servers else time.monotonic()
        self._failed: defaultdict[int, dict[str, Result]] = defaultdict(dict)
        self._lost: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._sent: dict[int, float] = {}  # row → when this run sent it last
        self._new: deque[int] = deque()
        self._again: dict[int, None] = {}  # rows that one server at least could not do, the oldest first
        left = list(rows)
        self._left = len(left)
        ids = Counter((sent.server, sent.prompt_id) for sent in journal.in_flight.values())
        for row in left:
            sent = journal.in_flight.get(row)
            if sent is not None and sent.server in self._servers and ids[sent.server, sent.prompt_id] == 1:
                self._servers[sent.server].in_flight[row] = sent
            else:
                self._new.append(row)

    @property
    def finished(self) -> bool:
        """Whether every row has its result."""
        return self._left == 0

    @property
    def unusable(self) -> dict[str, str]:
        """The servers that take no further part → why."""
        return {url: server.unusable for url, server in self._servers.items() if server.unusable}

    def in_flight(self, server: str) -> list[Submission]:
        """Return the rows in flight on a server."""
        return list(self._servers[server].in_flight.values())

    def taken_over(self, server: str) -> list[str]:
        """Return the ids of prompts that others do meanwhile, to be cancelled on this server; each is returned once."""
        ids, self._servers[server].taken_over = self._servers[server].taken_over, []
        return ids

    def take(self, server: str) -> Submission | None:
        """The next row for this server, written down with the id to send it under; None if there is none."""
        if self._servers[server].leaving:
            return None
        row = next((row for row in self._again if self._suits(row, server)), None)
        if row is None and self._new and len(self._again) < RETRIED_FIRST:
            row = self._new.popleft()
        if row is None:
            row = self._take_over(server)
        if row is None:
            return None
        self._again.pop(row, None)
        submission = self._journal.sending(row, server)
        self._servers[server].in_flight[row] = submission
        self._sent[row] = time.monotonic()
        return submission

    def rename(self, submission: Submission, prompt_id: str, node_errors: str) -> None:
        """The server gave the prompt another id than ours, or leaves some of its outputs out."""
        if prompt_id != submission.prompt_id and self._journal.is_known(submission.server, prompt_id):
            in_flight = self.in_flight(submission.server)
            for same in [sent for sent in in_flight if sent.prompt_id == prompt_id or sent == submission]:
                self.fail(same, f"{same.server} gave two prompts the same id, '{prompt_id}'.")
            return
        renamed = self._journal.renamed(submission, prompt_id, node_errors)
        self._servers[submission.server].in_flight[submission.row] = renamed

    def complete(self, submission: Submission, files: list[str], warnings: list[str]) -> None:
        """The row is done, its files are on disk."""
        if self._ends(submission):
            row, server = submission.row, submission.server
            result = Result(row, files, warnings, server=server, seconds=self._seconds(row))
            self._journal.completed(result)
            self._settle(result)

    def fail(self, submission: Submission, error: str, files: Iterable[str] = ()) -> None:
        """The row failed on this server: another one may try it, if there is one that has not."""
        if self._ends(submission):
            self._journal.dropped(submission.row, error)
            self._offer(submission.row)
            self._fail_at(submission, error, list(files))

    def lose(self, submission: Submission, reason: str) -> None:
        """The server forgot the row, or is gone with it: another one does it, or the same one again."""
        if self._ends(submission):
            self._journal.dropped(submission.row, reason)
            self._offer(submission.row)
            self._lost[submission.row][submission.server] += 1
            if self._lost[submission.row][submission.server] >= LOST_MAX:
                self._fail_at(submission, f"it was lost {LOST_MAX} times; the last time: {reason}", [])

    def set_up(self, server: str, up: bool) -> None:
        """Whether a server answers."""
        if self._servers[server].up and not up:
            self._servers[server].down_since = time.monotonic()
        self._servers[server].up = up
        self._take_back_from(server)
        self._review()

    def join(self, server: str) -> None:
        """A server takes part from now on, or again."""
        before = self._servers.get(server)
        if before is None or before.leaving or before.unusable:
            self._servers[server] = _Server(in_flight=before.in_flight if before else {})
            self._review()

    def leave(self, server: str) -> None:
        """A server gets no more rows; those in flight there end, or go back if it does not answer."""
        self._servers[server].leaving = True
        self._take_back_from(server)
        self._review()

    def has_left(self, server: str) -> bool:
        """Whether a server was told to leave, and has ended all that it had begun."""
        return self._servers[server].gone

    def dismiss(self, server: str, reason: str) -> None:
        """Give a server up for the rest of the run; what is in flight there stays in the journal."""
        self._servers[server].up, self._servers[server].unusable = False, reason
        self._review()

    def all_down_for(self) -> float:
        """Seconds for which no server has answered; 0 while one does."""
        return 0.0 if self._all_down_since is None else time.monotonic() - self._all_down_since

    def _review(self) -> None:
        """Note since when no server answers, and settle the rows that only servers now gone could have done."""
        if any(server.up and not server.gone for server in self._servers.values()):
            self._all_down_since = None
        elif self._all_down_since is None:
            self._all_down_since = time.monotonic()
        for row in list(self._again):
            self._give_up_if_hopeless(row)

    def _up(self) -> Iterator[str]:
        """The servers that answer and may get rows."""
        return (url for url, server in self._servers.items() if server.up and not server.leaving)

    def _take_back_from(self, server: str) -> None:
        """Offer to others what is in flight on a server that leaves and does not answer."""
        if self._servers[server].leaving and not self._servers[server].up:
            for submission in self.in_flight(server):
                self.lose(submission, f"{server} was to leave, and does not answer.")

    def _seconds(self, row: int) -> float | None:
        """Seconds since the row was sent; None where an earlier run did that."""
        sent = self._sent.pop(row, None)
        return None if sent is None else round(time.monotonic() - sent, 3)

    def _suits(self, row: int, server: str) -> bool:
        """Whether the server may do the row, and none that answers has lost it less often."""
        failed, lost = self._failed.get(row, {}), self._lost[row]
        return server not in failed and all(lost[server] <= lost[url] for url in self._up() if url not in failed)

    def _take_over(self, server: str) -> int | None:
        """A row in flight on another server that does not answer: from now on it waits for this one."""
        for url, other in self._servers.items():
            for submission in [] if other.up or url == server else list(other.in_flight.values()):
                if server not in self._failed.get(submission.row, {}):
                    other.taken_over.append(submission.prompt_id)
                    self.lose(submission, other.unusable or f"{url} does not answer.")
                if submission.row in self._again:
                    return submission.row
        return None

    def _ends(self, submission: Submission) -> bool:
        """Take the submission off its server; False if it was not there any more, as another one does the row."""
        in_flight = self._servers[submission.server].in_flight
        if in_flight.get(submission.row) != submission:
            return False
        del in_flight[submission.row]
        return True

    def _offer(self, row: int) -> None:
        self._again[row] = None

    def _fail_at(self, submission: Submission, error: str, files: list[str]) -> None:
        seconds = self._seconds(submission.row)
        result = Result(submission.row, files, error=error, server=submission.server, seconds=seconds)
        self._failed[submission.row][submission.server] = result
        self._give_up_if_hopeless(submission.row)

    def _give_up_if_hopeless(self, row: int) -> None:
        """Settle a waiting row as failed if it has failed on every server that may still do it."""
        failed, now = self._failed.get(row), time.monotonic()
        left = {
            url
            for url, server in self._servers.items()
            if not server.leaving and (server.up or (not server.unusable and now - server.down_since < RETURN_WAIT))
        }
        if failed and left and left <= set(failed):
            del self._again[row]
            self._settle(max(failed.values(), key=lambda result: len(result.files)))

    def _settle(self, result: Result) -> None:
        self._left -= 1
        self.results[result.row] = result
        self._failed.pop(result.row, None)
        self._lost.pop(result.row, None)
        self._on_result(result)
