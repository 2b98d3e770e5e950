"""Folders that are written whole or not at all."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .files import CheckpointError

_PART = re.compile(r"\.[0-9a-f]{32}\.part")


@contextmanager
def whole_folder(target: Path, last: str) -> Iterator[Path]:
    """A folder to write that is whole or absent: gives one aside, which takes its place where `with` ends well.

    A new folder is written beside its place and renamed. One that is there, empty, stays the folder that it is, be it
    linked, mounted, or where somebody's shell stands: it is written to a hidden folder inside, whose entries move out
    at the end.

    Args:
        target: the folder; a symbolic link's is what it points to.
        last: the entry without which the others count for nothing: it moves out when all others have.

    Raises:
        CheckpointError: the target is there already and not empty.
        OSError: the disk is full or the place cannot be written. Whatever fails, nothing is left behind.
    """
    place = Path(os.path.realpath(target))
    _refuse_filled(place, target)
    there = place.exists()
    aside = (place if there else place.parent) / f".{uuid.uuid4().hex}.part"
    new_parents = [path for path in aside.parents if not path.exists()]
    try:
        yield aside
        if there:
            _refuse_filled(place, target)
            _move_out(aside, place, last)
        else:
            aside.rename(place)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        for path in new_parents:
            with suppress(OSError):  # something else lies in it by now
                path.rmdir()
        raise


def _refuse_filled(place: Path, target: Path) -> None:
    """Raise CheckpointError unless it is absent, or an empty folder.

    What a process that was killed has left of such writing counts for nothing: nobody sees it, and it may be another's
    that is at work.
    """
    if place.exists() and (not place.is_dir() or not all(_PART.fullmatch(path.name) for path in place.iterdir())):
        raise CheckpointError(f"'{target}' is there already and not empty: name a new folder.")


def _move_out(aside: Path, place: Path, last: str) -> None:
    """Move what is in `aside` to `place`, all or nothing."""
    moved: list[Path] = []
    try:
        for entry in sorted(aside.iterdir(), key=lambda path: (path.name == last, path.name)):
            entry.rename(place / entry.name)
            moved.append(place / entry.name)
        aside.rmdir()
    except BaseException:
        for path in moved:
            with suppress(OSError):
                path.rename(aside / path.name)
        raise
