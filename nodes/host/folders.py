"""Where model folders are looked for."""

import os
from collections.abc import Iterator
from pathlib import Path

from ...unclip_core.families.detect import is_supported
from ...unclip_core.families.loading import BUNDLED
from ...unclip_core.listing import files_below
from .. import defaults
from ..inputs import InputError
from .abilities import in_comfyui

FOLDER_KEY = "unclip"
"""The key of the model folder in ComfyUI's `extra_model_paths.yaml`, and its name under `models/`."""

FOLDER_VARIABLE = "UNCLIP_MODELS"
"""Without ComfyUI: the environment variable with the folders to look for models in."""

SHARED_KEY = "diffusers"
"""ComfyUI's own folder of diffusers models: those that are unCLIP are listed too."""

INDEX_FILE = "model_index.json"

CONFIG_FILE = "config.json"
"""What marks a folder that holds a single part, such as a prior."""

LORA_KEY = "loras"
"""ComfyUI's own folder of LoRAs, of whatever model."""

LORA_VARIABLE = "UNCLIP_LORAS"
"""Without ComfyUI: the environment variable with the folders to look for LoRAs in."""

LORA_SUFFIXES = (".safetensors", ".bin")


def register_model_folder() -> None:
    """Add `models/unclip` to ComfyUI's model folders, behind those of `extra_model_paths.yaml`."""
    if in_comfyui():
        import folder_paths

        folder_paths.add_model_folder_path(FOLDER_KEY, os.path.join(folder_paths.models_dir, FOLDER_KEY))


def model_names() -> list[str]:
    """The bundled models, then every model folder found, relative, with `/` on every system; last the earlier name."""
    bundled = (*defaults.MODELS, defaults.EARLIER_MODEL)
    names = {name for root, mixed in _model_roots() for name in _models_below(root, mixed)}
    return [*defaults.MODELS, *sorted(names.difference(bundled)), defaults.EARLIER_MODEL]


def model_path(name: str) -> str:
    """The folder of the model that is listed as `name`.

    Raises:
        InputError: no listed model has that name (anymore); the message says which there are.
    """
    if name in (*defaults.MODELS, defaults.EARLIER_MODEL):
        return str(BUNDLED[name])
    for root, mixed in _model_roots():
        if name in _models_below(root, mixed):
            return os.path.join(root, *name.split("/"))
    raise InputError(f"There is no model {name!r}. There are: {', '.join(model_names())}.")


def lora_names() -> list[str]:
    """Every file of `LORA_SUFFIXES` in the folders of LoRAs, named as ComfyUI's LoRA nodes name them; none hidden."""
    if in_comfyui():
        import folder_paths

        return [name for name in folder_paths.get_filename_list(LORA_KEY) if _is_lora(Path(name))]
    found = ((root, path) for root in _lora_roots() for path in files_below(Path(root)) if _is_lora(path))
    return sorted({path.relative_to(root).as_posix() for root, path in found})


def lora_path(name: str) -> Path:
    """The file of the LoRA that is listed as `name`.

    Raises:
        InputError: no listed LoRA has that name (anymore).
    """
    if name in lora_names():
        if in_comfyui():
            import folder_paths

            return Path(folder_paths.get_full_path_or_raise(LORA_KEY, name))
        return next(path for root in _lora_roots() if (path := Path(root, name)).is_file())
    where = "models/loras" if in_comfyui() else f"the folders of the environment variable {LORA_VARIABLE}"
    raise InputError(f"There is no LoRA {name!r} in {where}. Put it there, or refresh the list.")


def _is_lora(path: Path) -> bool:
    return path.suffix in LORA_SUFFIXES and not path.name.startswith(".")


def _lora_roots() -> list[str]:
    return [root for root in os.environ.get(LORA_VARIABLE, "").split(os.pathsep) if root]


def _model_roots() -> list[tuple[str, bool]]:
    """Folders to look in, and whether models of other kinds live there too."""
    if in_comfyui():
        import folder_paths

        register_model_folder()
        shared = folder_paths.get_folder_paths(SHARED_KEY) if SHARED_KEY in folder_paths.folder_names_and_paths else []
        return [*((root, False) for root in folder_paths.get_folder_paths(FOLDER_KEY)), *((r, True) for r in shared)]
    return [(root, False) for root in os.environ.get(FOLDER_VARIABLE, "").split(os.pathsep) if root]


def _models_below(root: str, mixed: bool) -> Iterator[str]:
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        marked = INDEX_FILE in files
        alone = not marked and CONFIG_FILE in files and is_supported(Path(folder))
        if real in seen or marked or alone:
            below.clear()  # a link back up, or a model: what lies below belongs to it
        below[:] = [name for name in below if not (name.startswith(".") and name.endswith(".part"))]  # half written
        if real not in seen and (alone or (marked and (not mixed or is_supported(Path(folder))))):
            yield os.path.relpath(folder, root).replace(os.sep, "/")
        seen.add(real)
