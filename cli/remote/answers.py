"""What a ComfyUI answers, in checked types: each reader takes parsed JSON and raises MalformedInput if it is odd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...unclip_core.parsing import MalformedInput, checked, parse_json

FILES_MAX = 10_000
"""More files of one prompt than any workflow saves."""

_SHOWN, _LETTERS = 20, 500
_PROMPT_ID = re.compile(r"[\w-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class SavedFile:
    """A file as `/view` names it."""

    filename: str
    subfolder: str | None = ""
    type: str | None = "output"

    def query(self) -> dict[str, str]:
        """The query of `/view`."""
        named = {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}
        return {key: value for key, value in named.items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """What became of a prompt: an error, or the files that it saved; and the warnings of its nodes."""

    error: str = ""
    files: list[SavedFile] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Accepted:
    """A prompt that the server has queued.

    Attributes:
        prompt_id: its id there.
        node_errors: why the server leaves some of the workflow's outputs out; "" if it runs all of it.
    """

    prompt_id: str
    node_errors: str = ""


@dataclass(frozen=True)
class _Error:
    message: str
    details: str | None = ""


@dataclass(frozen=True)
class _NodeErrors:
    errors: list[_Error]
    class_type: str | None = "?"


@dataclass(frozen=True)
class _Prompt:
    """The answer of POST /prompt, whether it accepts (200) or refuses (400)."""

    prompt_id: str | None = None
    error: _Error | str | None = None
    node_errors: dict[str, _NodeErrors] | list[_NodeErrors] | None = None


@dataclass(frozen=True)
class _Queue:
    queue_running: list[list[Any]]
    queue_pending: list[list[Any]]


@dataclass(frozen=True)
class _Status:
    status_str: str | None = "success"
    messages: list[Any] | None = None


@dataclass(frozen=True)
class _History:
    status: _Status | None = None
    outputs: dict[str, dict[str, Any] | None] | None = None


def accepted(answer: Any, prompt_id: str, name: str) -> Accepted:
    """Read the answer to a prompt that was sent under `prompt_id`. MalformedInput starts with `name`."""
    said = checked(_Prompt, answer, name)
    given = said.prompt_id or prompt_id
    if not _PROMPT_ID.fullmatch(given):
        raise MalformedInput(f"{name} gives a prompt an id that is none: {plain(given)!r}.")
    return Accepted(given, _sentence(said.node_errors))


def refusal(body: bytes) -> str:
    """ComfyUI's answer to an invalid prompt in a sentence: each node and what is wrong with it, or the text itself."""
    try:
        said = checked(_Prompt, parse_json(body, "The answer"), "The answer")
    except MalformedInput:
        said = _Prompt()
    error = said.error.message if isinstance(said.error, _Error) else said.error
    text = body.decode(errors="replace")
    return _sentence(said.node_errors) or plain(error or text).strip() or "the prompt is invalid."


def _sentence(errors: dict[str, _NodeErrors] | list[_NodeErrors] | None) -> str:
    by_id = dict(enumerate(errors)) if isinstance(errors, list) else errors or {}
    lines = [
        f"node {key} ({entry.class_type}): {error.message}{f': {error.details}' if error.details else ''}"
        for key, entry in by_id.items()
        for error in entry.errors
    ]
    return "; ".join(some(lines))


def queued_ids(answer: Any, name: str) -> set[str]:
    """The ids of the prompts that run or wait, from the answer of GET /queue. MalformedInput starts with `name`."""
    queue = checked(_Queue, answer, name)
    entries = [*queue.queue_running, *queue.queue_pending]
    if any(len(entry) < 2 or not isinstance(entry[1], str) for entry in entries):
        raise MalformedInput(f"{name} does not say the ids of what is queued.")
    return {entry[1] for entry in entries}


def outcome(answer: Any, prompt_id: str, name: str) -> Outcome | None:
    """What became of a prompt, from the answer of GET /history/ID; None if the server knows nothing of it.

    Raises:
        MalformedInput: the answer is odd; the message starts with `name`.
    """
    row = checked(dict[str, Any], answer, name).get(prompt_id)
    if row is None:
        return None
    history = checked(_History, row, name)
    status, outputs = history.status or _Status(), [output for output in (history.outputs or {}).values() if output]
    if status.status_str not in ("success", None):
        return Outcome(error=_failure(status.messages or [], name))
    lists = [entries for output in outputs for entries in output.values() if isinstance(entries, list)]
    named = [entry for entries in lists for entry in entries if isinstance(entry, dict) and entry.get("filename")]
    if len(named) > FILES_MAX:
        raise MalformedInput(f"{name} lists {len(named):,} files; at most {FILES_MAX:,} are downloaded.")
    kept = checked(list[SavedFile], named, name)
    saved = [entry for entry in kept if entry.type == "output"]
    warnings = [entry for output in outputs for entry in _texts(output.get("warnings"))]
    return Outcome("" if kept else "it ended without a file.", saved or kept, some(warnings))


def _texts(said: Any) -> list[str]:
    entries = said if isinstance(said, list) else [said]
    return [plain(str(entry)) for entry in entries if entry is not None]


def _failure(messages: list[Any], name: str) -> str:
    for kind, data in checked(list[tuple[str, Any]], messages, name):
        if kind == "execution_error":
            error = checked(dict[str, Any], data, name)
            said = str(error.get("exception_message") or "").strip()
            return plain(f"node {error.get('node_id')} ({error.get('node_type')}): {said}")
        if kind == "execution_interrupted":
            return "it was interrupted on the server."
    return "it ended in an error that the server does not explain."


def plain(text: str) -> str:
    """A server's words for a terminal: in one line, without control characters, and not longer than a paragraph."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: _LETTERS + 1])
    return line if len(line) <= _LETTERS else line[:_LETTERS] + "…"


def some(lines: Sequence[str]) -> list[str]:
    """The first of a server's sentences, and how many more there are."""
    shown = [plain(line) for line in lines[:_SHOWN]]
    return [*shown, f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else shown
