"""ComfyUI's input and output folders; without ComfyUI those of the run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from .abilities import in_comfyui

_OUTPUT: ContextVar[Path] = ContextVar("output", default=Path("output"))
_INPUTS: ContextVar[tuple[Path, ...]] = ContextVar("inputs", default=(Path(),))


@contextmanager
def working_in(output: Path, inputs: Sequence[Path]) -> Iterator[None]:
    """Without ComfyUI: the folder to save in, and those to load from, while the context lasts."""
    tokens = _OUTPUT.set(Path(output)), _INPUTS.set(tuple(map(Path, inputs)))
    try:
        yield
    finally:
        _OUTPUT.reset(tokens[0])
        _INPUTS.reset(tokens[1])


def output_folder() -> Path:
    """Where nodes save files."""
    if in_comfyui():
        import folder_paths

        return Path(folder_paths.get_output_directory())
    return _OUTPUT.get()


def input_folders() -> tuple[Path, ...]:
    """Where nodes look for files, in this order."""
    if in_comfyui():
        import folder_paths

        return (Path(folder_paths.get_input_directory()),)
    return _INPUTS.get()
