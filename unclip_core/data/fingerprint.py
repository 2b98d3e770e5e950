"""Fingerprints of files and texts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(texts: Iterable[str]) -> str:
    """32 hex digits of BLAKE2b over the texts, each ended."""
    total = hashlib.blake2b(digest_size=16)
    for text in texts:
        total.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()


def file_fingerprint(path: Path) -> str:
    """A file's size and time of change; "" where there is none."""
    try:
        info = path.stat()
    except OSError:
        return ""
    return f"{info.st_size} {info.st_mtime_ns}"
