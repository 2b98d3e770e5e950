"""One ComfyUI server over HTTP: queue a prompt, ask what became of it, fetch its files. Nothing is followed elsewhere.

Every call has limits of time and size; whatever goes wrong is one of four errors, by what is to be done about it.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...unclip_core.parsing import MalformedInput, parse_json
from .address import HEADER_VARIABLE, read_address
from .answers import Accepted, Outcome, SavedFile, accepted, outcome, plain, queued_ids, refusal

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

CONNECT = 10.0
"""Seconds to reach the server."""

TIMEOUT = 30.0
"""Seconds of silence that end a call, and seconds that a whole answer in JSON may take."""

PACE = 16 * 2**10
"""Bytes a second that a download has to bring on average, once `TIMEOUT` is over."""

JSON_MAX, FILE_MAX = 64 * 2**20, 2**30
"""Bytes of an answer in JSON and of a file; more is not read."""

FILE_TOTAL = TIMEOUT + FILE_MAX / PACE

_NOT_NOW = (408, 425, 429, 502, 503, 504)
_DENIED = (401, 403, 407)


class Unreachable(Exception):
    """The server does not answer now: wait for it. The message says what happened."""


class TooSlow(Unreachable):
    """The server did not answer within the limits of time."""


class OddAnswer(Exception):
    """The server does not answer as a ComfyUI does: another call, or another server, may bring it."""


class Unusable(Exception):
    """The server will not answer, however long one waits: it asks for credentials, or points elsewhere."""


class Refused(Exception):
    """The server does not take a prompt; the message is its own."""


class ComfyServer:
    """A client of one server, as an asynchronous context: `async with server:` opens its connections.

    Args:
        url: its address, which may hold user and password.
        timeout: seconds of silence that end a call, and that a whole answer in JSON may take.
        headers: to send with every request.

    Attributes:
        url: the address without credentials.

    Raises:
        ValueError: `url` is no HTTP address.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT, headers: Mapping[str, str] | None = None) -> None:
        self._address = read_address(url, headers)
        self.url = self._address.url
        self._timeout = timeout
        self._client_id = uuid.uuid4().hex  # a prompt without one sends its progress to whoever is connected
        self._session: ClientSession | None = None

    async def __aenter__(self) -> ComfyServer:
        import aiohttp

        self._session = aiohttp.ClientSession(
            headers={"Accept-Encoding": "identity", **self._address.headers},  # what is compressed can be of any size
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=not self._address.local,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        self._session = None

    async def queue(self, prompt: dict[str, Any], prompt_id: str) -> Accepted:
        """Queue a prompt under this id.

        Raises:
            Refused: the server finds it invalid.
            Unreachable, OddAnswer, Unusable: as always; it may be queued nevertheless.
        """
        body = {"prompt": prompt, "prompt_id": prompt_id, "client_id": self._client_id}
        status, said = await self._call("/prompt", body)
        if 400 <= status < 500 and status not in _NOT_NOW:
            raise Refused(refusal(said) if status == 400 else f"{self.url}/prompt answers {status}: {refusal(said)}")
        return self._read("/prompt", status, said, lambda answer, name: accepted(answer, prompt_id, name))

    async def queued(self) -> set[str]:
        """The ids of the prompts that run or wait."""
        return self._read("/queue", *await self._call("/queue"), queued_ids)

    async def outcome(self, prompt_id: str) -> Outcome | None:
        """What became of a prompt that has ended; None if the server knows nothing of it."""
        path = f"/history/{prompt_id}"
        return self._read(path, *await self._call(path), lambda answer, name: outcome(answer, prompt_id, name))

    async def cancel(self, prompt_ids: list[str]) -> None:
        """Take prompts that still wait out of the queue; those that run or are unknown stay as they are."""
        status, _ = await self._call("/queue", {"delete": prompt_ids})
        self._check(status, "/queue")

    async def fetch(self, file: SavedFile, write: Callable[[bytes], object]) -> None:
        """Hand a file of an outcome to `write`, piece after piece; what was written before an error is worthless."""
        async with await self._open("/view", FILE_TOTAL, query=file.query()) as answer:
            self._check(answer.status, "/view")
            await self._receive(answer, "/view", write, FILE_MAX)

    async def _call(self, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of an answer that is meant to be JSON."""
        data = bytearray()
        async with await self._open(path, self._timeout, body) as answer:
            await self._receive(answer, path, data.extend, JSON_MAX)
        return answer.status, bytes(data)

    async def _open(
        self, path: str, total: float, body: Any = None, query: Mapping[str, str] | None = None
    ) -> ClientResponse:
        import aiohttp

        assert self._session is not None, "the server is used outside of its context"
        try:
            answer = await self._session.request(
                "GET" if body is None else "POST",
                self.url + path,
                params=query,
                data=None if body is None else json.dumps(body).encode(),
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total, sock_connect=CONNECT, sock_read=self._timeout),
                allow_redirects=False,
            )
        except Exception as error:
            raise self._unreachable(error) from error
        if reason := self._unusable(answer, path):
            answer.close()
            raise Unusable(reason)
        return answer

    def _unusable(self, answer: ClientResponse, path: str) -> str:
        if 300 <= answer.status < 400:
            place = _scheme_and_host(answer.headers.get("Location", ""))
            return (
                f"{self.url}{path} redirects ({answer.status}){f' to {place}' if place else ''}, which is not "
                "followed. If that is your server, give its own address to --server."
            )
        if answer.status in _DENIED and (path, answer.status) != ("/view", 403):  # 403 there is of one file
            return (
                f"{self.url} answers {answer.status}: it wants other credentials. Give them as "
                f"--server https://user:password@host or as a header in {HEADER_VARIABLE}."
            )
        return ""

    async def _receive(
        self, answer: ClientResponse, path: str, write: Callable[[bytes], object], max_bytes: int
    ) -> None:
        """Read a body piece after piece, within the limits of size and pace."""
        received, began = 0, time.monotonic()
        while piece := await self._piece(answer):
            received += len(piece)
            if received > max_bytes:
                raise OddAnswer(f"{self.url}{path} answers with more than {max_bytes:,} bytes.")
            if time.monotonic() - began > self._timeout + received / PACE:
                raise TooSlow(f"{self.url}{path} is too slow: {received:,} bytes within {self._timeout:g} s.")
            write(piece)

    async def _piece(self, answer: ClientResponse) -> bytes:
        try:
            return await answer.content.readany()
        except Exception as error:
            raise self._unreachable(error) from error

    def _read(self, path: str, status: int, said: bytes, read: Callable[[Any, str], Any]) -> Any:
        self._check(status, path)
        name = f"The answer of {self.url}{path}"
        try:
            return read(parse_json(said, name), name)
        except MalformedInput as error:
            raise OddAnswer(f"{plain(str(error))} Is it a ComfyUI?") from error

    def _check(self, status: int, path: str) -> None:
        if status in _NOT_NOW:
            raise Unreachable(f"{self.url}{path} answers {status}.")
        if status != 200:
            raise OddAnswer(f"{self.url}{path} answers {status}.")

    def _unreachable(self, error: Exception) -> Unreachable:
        if isinstance(error, asyncio.TimeoutError):
            return TooSlow(f"{self.url} does not answer within {self._timeout:g} s.")
        return Unreachable(f"{self.url} does not answer: {plain(str(error)) or type(error).__name__}.")


def _scheme_and_host(location: str) -> str:
    """Scheme and host of a redirect's target; "" if it has none."""
    try:
        parts = urlsplit(location)
        return plain(f"{parts.scheme}://{parts.hostname}") if parts.scheme and parts.hostname else ""
    except ValueError:
        return ""
