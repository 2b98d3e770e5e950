"""Fingerprints by which a change of files or texts is noticed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(texts: Iterable[str]) -> str:
    """Return BLAKE2b over NUL-terminated texts, 32 hex digits."""
    total = hashlib.blake2b(digest_size=16)
    for text in texts:
        total.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return total.hexdigest()


def file_fingerprint(path: Path) -> str:
    """Return a file's size and modification time as a text, "" where there is no file."""
    try:
        info = path.stat()
    except OSError:
        return ""
    return f"{info.st_size} {info.st_mtime_ns}"
