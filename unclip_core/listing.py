"""The files of a folder: what is not hidden in it, and all below it, through links too."""

import os
from collections.abc import Callable
from pathlib import Path


def files_below(folder: Path, unreadable: Callable[[OSError], None] | None = None) -> list[Path]:
    """List every file below a folder, sorted; linked folders are entered too, each real folder once.

    `Path.rglob` enters no linked folder, and a link that leads back to a folder above would make it endless.

    Args:
        folder: where to begin.
        unreadable: called with the error of each folder that cannot be read; None leaves them out.
    """
    found: list[Path] = []
    entered: set[str] = set()
    waiting = [folder]
    while waiting:  # real folders first: one that is linked from beside it keeps its own name
        for here, folders, names in os.walk(waiting.pop(0), onerror=unreadable):
            real = os.path.realpath(here)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            found += [Path(here, name) for name in names]
            linked = sorted(name for name in folders if os.path.islink(os.path.join(here, name)))
            waiting += [Path(here, name) for name in linked]
            folders[:] = [name for name in folders if name not in linked]
    return sorted(found)


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """List what matches the pattern in a folder, sorted, but what is hidden: other systems leave "._NAME" beside NAME.

    There is none in a folder that is not there.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
