"""Puts a written file in the place of another one, also of one that a program has mapped into memory."""

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

_OLD = re.compile(r"\.[0-9a-f]{32}\.old")


def put_in_place(written: Path, path: Path) -> None:
    """Rename `written` to `path`; a file that is there gives way.

    Windows renames nothing over a file that is mapped, as a training's base is and a model that ComfyUI holds. But such
    a file may be renamed itself: it goes aside, is read on from there, and is deleted when a file in that folder is
    replaced and nobody has it mapped any more.

    Raises:
        PermissionError: a program has the file at `path` open in a way that keeps it there, or it may not be replaced.
            It is then what it was.
        OSError: of any other kind; likewise.
    """
    replaced = path.is_file()
    try:
        os.replace(written, path)
    except PermissionError:
        if not replaced:
            raise
        _exchange(written, path)
    if replaced:
        _sweep(path.parent)


def _exchange(written: Path, path: Path) -> None:
    old = path.with_name(f".{uuid.uuid4().hex}.old")
    try:
        os.rename(path, old)
    except PermissionError as error:
        said = "another program has it open, or it may not be replaced: close that program, or delete the file"
        raise PermissionError(error.errno, said, str(path)) from error
    try:
        os.rename(written, path)
    except OSError:
        os.rename(old, path)
        raise


def _sweep(folder: Path) -> None:
    """Delete what went aside, as far as nobody has it mapped any more."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _OLD.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()
