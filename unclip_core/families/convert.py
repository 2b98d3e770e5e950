"""`unclip convert`: any Karlo that can be read, to a safetensors folder in diffusers' layout."""

from pathlib import Path

from ..models import UnclipModel
from ..weights.files import CheckpointError
from .karlo.kakao_reader import KakaoFolder
from .karlo.reader import KarloFolder
from .karlo.writer import DTYPES, FolderWriter
from .loading import load_model


def convert(source: str | Path, target: str | Path, dtype: str = "fp32") -> Path:
    """Write the model in folder `source` to the new folder `target`, component after component.

    Args:
        source: kakaobrain's files, or a diffusers folder of .bin or other files.
        target: made; must not hold anything yet.
        dtype: "fp32", "fp16" or "bf16".

    Returns:
        The folder.

    Raises:
        CheckpointError: the source is no Karlo, lacks what any Karlo has, or is damaged; or the target is not empty.
        ValueError: the dtype is unknown.
        OSError: the disk is full; the folder is then no model, as it has no index.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    model = load_model(source, DTYPES[dtype], conventions="diffusers")
    has = _components(model)
    writer = FolderWriter(Path(target), DTYPES[dtype])
    _write_clip(model, writer)
    if "prior" in has:
        part = model.reader.prior()
        writer.prior(part.net, part.diffusion)
        del part
    part = model.reader.decoder()
    writer.decoder(part.net, part.diffusion)
    size = part.image_size
    del part
    if "super_res" in has:
        part = model.reader.upsampler()
        writer.upsampler(part.net, part.last, size * part.scale, part.diffusion)
    writer.finish()
    return writer.folder


def convert_and_say(source: str, target: str, dtype: str) -> None:
    """`convert`, and print what was written."""
    folder = convert(source, target, dtype)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in files)
    print(f"{folder}: {len(files)} files, {total / 1e9:.2f} GB")


def _write_clip(model: UnclipModel, writer: FolderWriter) -> None:
    adapter = model.reader.clip().adapter
    towers = adapter.model
    if towers.text is not None:
        writer.text(towers.text, adapter.tokenizer)
    if towers.vision is not None:
        writer.vision(towers.vision, adapter.image_input)


def _components(model: UnclipModel) -> set[str]:
    if isinstance(model.reader, KarloFolder):
        names = model.reader.components
        return (names & {"prior", "decoder"}) | ({"super_res"} if "super_res_first" in names else set())
    if isinstance(model.reader, KakaoFolder):
        return set(model.reader.files)
    raise CheckpointError(
        f"'{model.folder}' is a model of this project's own format already, of the family "
        f"'{model.family}': there is nothing to convert."
    )
