"""The files that nodes save and load: numbered ones below the output folder, and any in the input folders."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ..unclip_core.listing import files_below, visible
from . import host
from .inputs import InputError, Widget, check_text, checking

SUFFIX = ".safetensors"
FOLDER = "unclip"
"""Below the output folder: what is saved in it can be chosen in the loading nodes."""

SAVED = "(saved)"
"""The choice that takes the file that is linked to the input 'saved'."""

OUTPUT_MARK = " [output]"
"""How ComfyUI marks the names of files in its output folder."""


@contextmanager
def new_file(prefix: str) -> Iterator[tuple[Path, str]]:
    """Reserve the next free path `<prefix>_00001_.safetensors` below the output folder; give it and its loading name.

    The file exists, empty, while the context lasts; if that ends in an error, it is removed.

    Raises:
        InputError: the prefix is empty or leaves the output folder.
    """
    from .image_files import (  # here: while no file is saved, ComfyUI pays nothing for it
        expand_prefix,
        target,
    )

    root = host.output_folder()
    try:
        folder, stem = target(root, expand_prefix(prefix, 0, 0, time.localtime()))
    except ValueError as error:
        raise InputError(f"'filename_prefix': {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    path = _take_number(folder, stem)
    try:
        yield path, path.relative_to(root.resolve()).as_posix() + OUTPUT_MARK
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _take_number(folder: Path, stem: str) -> Path:
    from .image_files import next_number

    number = next_number(folder, stem)
    while True:
        path = folder / f"{stem}_{number:05}_{SUFFIX}"
        try:
            path.open("xb").close()
        except FileExistsError:
            number += 1
        else:
            return path


def among_inputs(suffix: str) -> list[str]:
    """List the names of the files in the input folders that end in `suffix`, each once, sorted; none that is hidden."""
    return sorted({path.name for root in host.input_folders() for path in visible(root, f"*{suffix}")})


def listed() -> list[str]:
    """List what a loading node offers: `SAVED`, files in the input folders, and those below `unclip` in the output."""
    root = host.output_folder()
    outputs = [
        path.relative_to(root).as_posix() + OUTPUT_MARK for path in files_below(root / FOLDER) if path.suffix == SUFFIX
    ]
    return [SAVED, *among_inputs(SUFFIX), *sorted(outputs)]


def find(name: str, saved: str | None = None) -> Path:
    """Return the file called `name`, or `saved` if that is given: a name as `listed` or `new_file` gives it.

    Raises:
        InputError: no file has that name, or it lies outside the folders that are looked in.
    """
    wanted = name if saved is None else saved
    if not isinstance(wanted, str) or not wanted.strip():
        raise InputError(f"A file's name must be a text, not {wanted!r}.")
    if wanted == SAVED:
        raise InputError(f"'file' is '{SAVED}', but nothing is linked to 'saved': choose a file, or link one.")
    marked = wanted.endswith(OUTPUT_MARK)
    roots = (host.output_folder(),) if marked else host.input_folders()
    for root in roots:
        path = (root / wanted.removesuffix(OUTPUT_MARK)).resolve()
        if path.suffix == SUFFIX and path.is_file() and root.resolve() in path.parents:
            return path
    looked = ", ".join(f"'{root}'" for root in roots)
    missing = wanted.removesuffix(OUTPUT_MARK)
    raise InputError(f"There is no file {missing!r} in {looked}. Save one first, or refresh the list.")


def version(name: str | None) -> str:
    """Return what changes when the file does: its size and time; empty for one that comes over a link."""
    if name in (None, SAVED):
        return ""
    return size_and_time(find(name))


def size_and_time(path: Path) -> str:
    """Return what changes when the file `path` does."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns}"


def saved(path: Path, name: str) -> dict[str, Any]:
    """Return what a node that has written `path` returns: the name to load it by, which the node shows too."""
    folder = path.parent.relative_to(host.output_folder().resolve()).as_posix()
    entry = {"filename": path.name, "subfolder": "" if folder == "." else folder, "type": "output"}
    shown = host.with_text((name,), f"Saved: {name.removesuffix(OUTPUT_MARK)}")
    return {**shown, "ui": {**shown["ui"], "files": [entry]}}


def check_file(name: Any) -> None:
    """Check a loading node's choice; a linked file is only looked for when its name arrives.

    Raises:
        InputError: no file has that name.
    """
    if name != SAVED:
        find(name)


def check_prefix(prefix: Any) -> None:
    """Check a saving node's prefix before anything is computed for it.

    Raises:
        InputError: it is empty, leaves the output folder, or no file can be called so.
    """
    from .image_files import target

    try:
        target(host.output_folder(), check_text("filename_prefix", prefix))
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"'filename_prefix': {error}") from error


class Saver:
    """What the nodes that save a file share.

    Attributes:
        LOADER: the name of the node that loads what this one saves.
        PREFIX: where it saves unless told otherwise.
    """

    LOADER: ClassVar[str]
    PREFIX: ClassVar[str]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("file",)
    FUNCTION = "run"
    OUTPUT_NODE = True
    VALIDATE_INPUTS = checking(filename_prefix=check_prefix)

    @classmethod
    def prefix_input(cls) -> Widget:
        """Return the input for the place below the output folder."""
        place = "Its place below the output folder; a number is put behind it. "
        offered = f"What lies in '{FOLDER}' there is offered by {cls.LOADER}."
        return ("STRING", {"default": cls.PREFIX, "tooltip": place + offered})


class Loader:
    """What the nodes that load a file share: their inputs, and when they look at it again.

    Attributes:
        SAVER: the name of the node that saves what this one loads.
    """

    SAVER: ClassVar[str]
    FUNCTION = "run"
    VALIDATE_INPUTS = checking(file=check_file)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order; the list is read anew at every refresh."""
        choose = (
            f"A file of {cls.SAVER}: in the input folder, or below '{FOLDER}' in the output folder. "
            f"{SAVED}: the linked one."
        )
        link = f"The file that {cls.SAVER} has just written; it counts more than 'file'."
        return {
            "required": {"file": (listed(), {"default": SAVED, "tooltip": choose})},
            "optional": {"saved": ("STRING", {"forceInput": True, "tooltip": link})},
        }

    @classmethod
    def IS_CHANGED(cls, file: str = SAVED, saved: str | None = None) -> str:
        """Return another value once the file has another size or time: ComfyUI then runs the node again."""
        return version(file if saved is None else saved)
