"""`unclip download karlo`: the public weights from the Hugging Face hub, only when the user runs it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .files import CheckpointError

REPOSITORIES = {
    "karlo": "kakaobrain/karlo-v1-alpha",
    "karlo-variations": "kakaobrain/karlo-v1-alpha-image-variations",
}
LICENCE = "CreativeML Open RAIL-M (the weights are kakaobrain's; read its use restrictions before you use them)"
_TEXTS = (".json", ".txt")
_WEIGHTS = (".safetensors", ".bin")
_MARKS = ("fp16", "bf16", "non_ema")


def download(name: str, target: str | None = None, revision: str | None = None) -> Path:
    """Fetch one of `REPOSITORIES` into `target`/<its name>; what is there already is not fetched again.

    Args:
        name: "karlo" (text to image) or "karlo-variations".
        target: the models folder; None finds ComfyUI's `models/unclip` around this package.
        revision: a branch, tag or commit of the repository.

    Returns:
        The model's folder.

    Raises:
        CheckpointError: the name is unknown, no folder was given and this package is not inside ComfyUI, or the hub
            cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if name not in REPOSITORIES:
        raise CheckpointError(f"There is no model {name!r} to download. There are: {', '.join(REPOSITORIES)}.")
    repository = REPOSITORIES[name]
    folder = (Path(target) if target else comfyui_models()) / repository.split("/")[1]
    try:
        files = needed_files(HfApi().list_repo_files(repository, revision=revision))
        print(f"{repository}: {len(files)} files into '{folder}'. Licence: {LICENCE}.")
        for number, file in enumerate(files, start=1):
            print(f"[{number}/{len(files)}] {file}")
            hf_hub_download(repository, file, revision=revision, local_dir=folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"'{repository}' could not be fetched ({_first_line(error)}). What has arrived stays: "
                              "run the command again to go on.") from error
    print(f"Done: choose '{folder.name}' in Load unCLIP Model.")
    return folder


def needed_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files those that loading needs: texts, and of each component one form of its weights.

    safetensors are taken where they are, else .bin; the plain form, not a variant; shards with their index.
    """
    by_folder: dict[str, list[str]] = {}
    for name in sorted(names):
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    wanted = []
    for folder, files in by_folder.items():
        texts = [f for f in files if f.endswith(_TEXTS) and not f.endswith(".index.json")]
        wanted += texts if folder or texts else []
        wanted += _weights(files) if folder else []
    return wanted


def _weights(files: list[str]) -> list[str]:
    for suffix in _WEIGHTS:
        found = [f for f in files if f.endswith((suffix, f"{suffix}.index.json"))]
        plain = [f for f in found if not any(f".{mark}." in f or f".{mark}-" in f for mark in _MARKS)]
        if plain or found:
            return plain or found
    return []


def comfyui_models() -> Path:
    """`models/unclip` of the ComfyUI whose `custom_nodes` holds this package.

    Raises:
        CheckpointError: there is none; the message says how to name a folder.
    """
    package = Path(__file__).absolute().parents[2]
    models = package.parent.parent / "models"
    if package.parent.name != "custom_nodes" or not models.is_dir():
        raise CheckpointError(f"'{package}' does not lie in a ComfyUI's custom_nodes: name a folder for the model "
                              "with --to, for example --to ComfyUI/models/unclip.")
    return models / "unclip"


def _first_line(error: Any) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
