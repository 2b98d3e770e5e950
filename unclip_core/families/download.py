"""`unclip download karlo`: the public weights from the Hugging Face hub, only when the user runs it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..listing import files_below
from ..output import say
from ..weights.files import CheckpointError
from .download_record import Record
from .registry import INDEX, Source, families

_TEXTS = (".json", ".txt")
_CARD = "README.md"  # a decoder's names its prior
_WEIGHTS = (".safetensors", ".bin")
_MARKS = ("fp16", "bf16", "non_ema")


def sources() -> dict[str, Source]:
    """Return the public weights of all families, by the name that `unclip download` takes."""
    return {name: source for family in families() for name, source in family.sources.items()}


def download(name: str, target: str | None = None, revision: str | None = None, hub: str | None = None) -> Path:
    """Fetch one of `sources` into `target`/<its name>, skipping files that are complete and of the revision.

    Args:
        name: one of `sources`, such as "karlo"; what it needs besides is fetched first.
        target: the models folder; None finds ComfyUI's `models/unclip` around this package.
        revision: a branch, tag or commit of the repository; None is its default branch. A file of the folder that no
            record tells the version of, from before there was one, is complete by its size for None alone.
        hub: the address of the hub; None takes huggingface_hub's, which `HF_ENDPOINT` sets.

    Returns:
        The model's folder.

    Raises:
        CheckpointError: the name is unknown, no folder was given and this package is not inside ComfyUI, the hub cannot
            be reached, or the folder holds files that the revision lacks and a reader would take.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    known = sources()
    if name not in known:
        raise CheckpointError(f"There is no model {name!r} to download. There are: {', '.join(known)}.")
    for other in known[name].needs:
        download(other, target, hub=hub)
    repository, licence = known[name].repository, known[name].licence
    folder = (Path(target) if target else comfyui_models()) / repository.split("/")[1]
    try:
        record = Record.read(folder)
        files = needed_files(HfApi(endpoint=hub).list_repo_files(repository, revision=revision))
        _refuse_leftovers(folder, files, record, revision)
        say(f"{repository}: {len(files)} files into '{folder}'.\nLicence of the weights: {licence}")
        for number, file in enumerate(files, start=1):
            say(f"[{number}/{len(files)}] {file}")
            fetch(repository, file, record, revision, hub)
    # An error that never reached the hub is of the HTTP library's own kind, a base of the hub's.
    except (*HfHubHTTPError.__bases__, OSError) as error:  # type: ignore[misc]  # they are exceptions; `type` says less
        raise CheckpointError(
            f"'{repository}' could not be fetched ({_first_line(error)}). What has arrived stays: "
            "run the command again to go on."
        ) from error
    say(f"Done: choose '{folder.name}' in Load unCLIP Model.")
    return folder


def fetch(repository: str, file: str, record: Record, revision: str | None = None, hub: str | None = None) -> None:
    """Fetch one file of a repository into the record's folder, resuming a partial download of the same version.

    huggingface_hub's own `hf_hub_download` forgets half a file: with gigabytes a file, a weak line never ends.

    Raises:
        OSError: the file has not come whole, or cannot be written, or the hub does not tell its version; or an error of
            the HTTP library.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get

    found = get_hf_file_metadata(hf_hub_url(repository, file, revision=revision, endpoint=hub))
    if not found.etag:
        raise OSError(f"the hub names no version of '{file}'")
    target = record.folder / file
    same = record.versions[file] == found.etag if file in record.versions else revision is None
    if same and target.is_file() and target.stat().st_size == found.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{found.etag[:16]}.part")  # of another version: another part
    with open(part, "ab") as held:
        if found.size is not None and held.tell() > found.size:
            held.truncate(0)
        plain = {"Accept-Encoding": "identity"}  # packed bytes could not be counted
        http_get(found.location, held, resume_size=held.tell(), headers=plain, expected_size=found.size)
    record.replace(file, part, found.etag)


def _refuse_leftovers(folder: Path, files: list[str], record: Record, revision: str | None) -> None:
    """Refuse a folder with files of another revision that readers would take beside, or before, those of this one.

    Of files without a record those are refused that hold weights, and only where a revision was named.
    """
    here = [path.relative_to(folder).as_posix() for path in files_below(folder) if path.is_file()]
    others = set(needed_files({*here, *files})) - set(files)
    if left := sorted(
        name for name in others if name in record.versions or (revision is not None and name.endswith(_WEIGHTS))
    ):
        raise CheckpointError(
            f"'{folder}' holds {', '.join(left)}, which this revision of the model lacks: delete them, or name another "
            "models folder with --to."
        )


def needed_files(names: Iterable[str]) -> list[str]:
    """Select the files of a repository that loading needs: configs, and one form of each component's weights.

    safetensors are taken where they are, else .bin; the plain form, not a variant; shards with their index.
    """
    by_folder: dict[str, list[str]] = {}
    for name in sorted(names):
        by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    wanted = []
    for folder, files in by_folder.items():
        texts = [f for f in files if f == _CARD or (f.endswith(_TEXTS) and not f.endswith(".index.json"))]
        wanted += texts
        # Beside an index lie copies of what its components hold; without one the repository is a single component.
        wanted += _weights(files) if folder or INDEX not in files else []
    return wanted


def _weights(files: list[str]) -> list[str]:
    for suffix in _WEIGHTS:
        found = [f for f in files if f.endswith((suffix, f"{suffix}.index.json"))]
        plain = [f for f in found if not any(f".{mark}." in f or f".{mark}-" in f for mark in _MARKS)]
        if plain or found:
            return plain or found
    return []


def comfyui_models() -> Path:
    """Return `models/unclip` of the ComfyUI whose `custom_nodes` holds this package.

    Raises:
        CheckpointError: there is none; the message says how to name a folder.
    """
    package = Path(__file__).absolute().parents[2]
    models = package.parent.parent / "models"
    if package.parent.name != "custom_nodes" or not models.is_dir():
        raise CheckpointError(
            f"'{package}' does not lie in a ComfyUI's custom_nodes: name a folder for the model "
            "with --to, for example --to ComfyUI/models/unclip."
        )
    return models / "unclip"


def _first_line(error: Any) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
