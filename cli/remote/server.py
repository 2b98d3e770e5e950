"""One ComfyUI server over HTTP: queue a prompt, ask what became of it, fetch its files."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

TIMEOUT = 30.0
_LOCAL = ("127.0.0.1", "localhost", "::1")


class Unreachable(Exception):
    """The server does not answer, or not as a ComfyUI does; the message says what it did."""


class Refused(Exception):
    """The server does not take a prompt; the message is its own."""


@dataclass(frozen=True)
class Outcome:
    """What became of a prompt: an error, or files as `/view` names them; and what nodes had to say."""

    error: str = ""
    files: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class ComfyServer:
    """A client of one server.

    Raises:
        ValueError: `url` is no HTTP address.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"--server {url!r} is no address of a server, such as http://127.0.0.1:8188.")
        self.url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._timeout = timeout
        # A proxy of the environment has no business between this machine and itself.
        proxies = [urllib.request.ProxyHandler({})] if parts.hostname in _LOCAL else []
        self._opener = urllib.request.build_opener(*proxies)

    def queue(self, prompt: dict[str, Any], prompt_id: str) -> str:
        """Queue a prompt under this id; returns the id that it has there.

        Raises:
            Refused: the server finds it invalid.
            Unreachable: as always.
        """
        answer = self._json("/prompt", {"prompt": prompt, "prompt_id": prompt_id})
        return str(answer.get("prompt_id") or prompt_id)

    def queued(self) -> set[str]:
        """The ids of the prompts that run or wait."""
        answer = self._json("/queue")
        try:
            return {str(entry[1]) for kind in ("queue_running", "queue_pending") for entry in answer[kind]}
        except (KeyError, TypeError, IndexError) as error:
            raise Unreachable(f"{self.url} is no ComfyUI: it does not say what is in its queue.") from error

    def outcome(self, prompt_id: str) -> Outcome | None:
        """What became of a prompt that has ended; None if the server knows nothing of it."""
        row = self._json(f"/history/{urllib.parse.quote(prompt_id)}").get(prompt_id)
        return None if row is None else _outcome(row)

    def cancel(self, prompt_ids: list[str]) -> None:
        """Take prompts that still wait out of the queue; those that run or are unknown stay as they are."""
        self._open("/queue", {"delete": prompt_ids})

    def fetch(self, entry: dict[str, str]) -> bytes:
        """A file of an outcome."""
        keys = ("filename", "subfolder", "type")
        return self._open("/view?" + urllib.parse.urlencode({key: entry[key] for key in keys if key in entry}))

    def _json(self, path: str, body: Any = None) -> dict[str, Any]:
        data = self._open(path, body)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise Unreachable(f"{self.url}{path} does not answer in JSON: is it a ComfyUI?") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.url}{path} does not answer as a ComfyUI does.")
        return answer

    def _open(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            said = error.read()
            if path == "/prompt" and error.code == 400:
                raise Refused(refusal(said)) from error
            raise Unreachable(f"{self.url}{path} answers {error.code}.") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(f"{self.url} does not answer: {reason or type(error).__name__}.") from error


def refusal(said: bytes) -> str:
    """ComfyUI's answer to an invalid prompt in a sentence: each node and what is wrong with it."""
    try:
        answer = json.loads(said)
        nodes = answer.get("node_errors") or {}
        lines = [
            f"node {key} ({entry['class_type']}): {error['message']}: {error['details']}"
            for key, entry in nodes.items()
            for error in entry["errors"]
        ]
        return "; ".join(lines) or str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return said.decode(errors="replace")[:500] or "the prompt is invalid."


def _outcome(row: dict[str, Any]) -> Outcome:
    status, outputs = row.get("status") or {}, row.get("outputs") or {}
    if status.get("status_str", "success") != "success":
        return Outcome(error=_failure(status.get("messages") or []))
    kept = [
        entry
        for output in outputs.values()
        for entries in output.values()
        if isinstance(entries, list)
        for entry in entries
        if isinstance(entry, dict) and entry.get("filename")
    ]
    saved = [entry for entry in kept if entry.get("type") == "output"]
    warnings = [str(said) for output in outputs.values() for said in output.get("warnings") or ()]
    return Outcome(files=saved or kept, warnings=warnings, error="" if kept else "it ended without a file.")


def _failure(messages: list[Any]) -> str:
    for kind, data in messages:
        if kind == "execution_error":
            return f"node {data.get('node_id')} ({data.get('node_type')}): {data.get('exception_message', '').strip()}"
        if kind == "execution_interrupted":
            return "it was interrupted on the server."
    return "it ended in an error that the server does not explain."
