"""Files of one model folder that another one takes over."""

import os
import shutil
from pathlib import Path

from ..weights.files import whole_file

LINKED = 64 << 20
"""Files of this size on share their place on the disk with the original, in bytes."""


def copy_or_link(source: Path, target: Path) -> None:
    """Have the file in both places: large ones as a second name of the same bytes, where the disk can do that.

    Files are replaced by renaming and never written into, so that neither place changes the other. A target that is
    there already, whole as it must be, stays; a symbolic link to nothing gives way.
    """
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        target.unlink()
    if source.stat().st_size >= LINKED:
        try:
            os.link(os.path.realpath(source), target)  # of a symbolic link, Linux would give the link a second name
            return
        except OSError:
            pass  # Another disk, or one without links: copied below.
    with whole_file(target) as copy, open(source, "rb") as original:
        shutil.copyfileobj(original, copy)
