"""The result of a training: a model folder that is loaded as it is, with the base's other parts in it."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..families.karlo import names
from ..families.karlo.reader import STATISTICS, KarloFolder
from ..families.loading import load_model
from ..families.native.reader import FORMAT, INDEX, read_index
from ..models import UnclipModel
from ..weights.files import DTYPES, Entry, save_weights, stream_weights, whole_file, write_whole
from .targets import Subject

KARLO = {
    "prior": {"prior": ("", names.PRIOR)},
    "decoder": {"text_proj": ("conditioner.", names.TEXT_PROJECTION), "decoder": ("unet.", names.UNET)},
    "upsampler": {"super_res_first": ("unet.", names.UNET)},
}
"""The folders of each part, with the prefix of their keys in our nets and the rules for their names."""
UPSAMPLERS = ("upsampler", "second_upsampler")
WEIGHTS = "diffusion_pytorch_model.safetensors"
LINKED = 64 << 20
"""Files of this size on share their place on the disk with the base's, in bytes."""


def write_result(
    stage: str,
    subject: Subject,
    base: UnclipModel | None,
    output: Path,
    averages: Mapping[str, Tensor],
    save_dtype: str,
) -> None:
    """Write the trained part and whatever of the base is not there yet, the index last.

    averages: the trained parameters by name, in place of the net's own.
    Raises OSError where the disk is full: the folder is then what it was, or lacks only its index.
    """
    tensors = {**subject.net.state_dict(), **averages}
    if base is not None and isinstance(base.reader, KarloFolder):
        _write_karlo(stage, base.folder, output, tensors, DTYPES[save_dtype])
        return
    dtype = DTYPES[save_dtype]
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_weights(output / f"{stage}.safetensors", cast, subject.header)
    components = _kept(stage, base, output) | {stage: f"{stage}.safetensors"}
    index = {"format": FORMAT, "family": subject.family, "components": components}
    write_whole(output / INDEX, (json.dumps(index, indent=2) + "\n").encode())


def _kept(stage: str, base: UnclipModel | None, output: Path) -> dict[str, str]:
    """The other parts: those of the base, brought here. A new CLIP goes with neither prior nor decoder of the old."""
    fitting = set(UPSAMPLERS if stage == "clip" else ("clip", "prior", "decoder", *UPSAMPLERS)) - {stage}
    kept = {name: file for name, file in _components(output).items() if name in fitting}
    for name, file in ({} if base is None else _components(base.folder)).items():
        if name in fitting and name not in kept:
            kept[name] = f"{name}.safetensors"
            _bring(base.folder / file, output / kept[name])
    return kept


def _components(folder: Path) -> dict[str, str]:
    return read_index(folder)["components"] if (folder / INDEX).is_file() else {}


def check_output(stage: str, subject: Subject, base: UnclipModel | None, output: Path) -> None:
    """Refuse to mix a result with parts in the output folder that it does not go with.

    Raises:
        ValueError: the folder holds another family or format, or a prior or decoder of the CLIP to be replaced.
    """
    if not (output / INDEX).is_file():
        return
    there = load_model(output)
    karlo = base is not None and isinstance(base.reader, KarloFolder)
    if isinstance(there.reader, KarloFolder) != karlo or (there.family != subject.family and stage != "clip"):
        raise ValueError(
            f"'{output}' holds a model of the family '{there.family}' already, and this training makes "
            f"a part of the family '{subject.family}': name another folder."
        )
    old = sorted({"prior", "decoder"} & set(_components(output))) if stage == "clip" else []
    if old:
        raise ValueError(
            f"'{output}' holds the parts {old} of another CLIP, which a new one would leave without "
            "their embeddings: name another folder."
        )


def _write_karlo(stage: str, base: Path, output: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    written = {
        name: {key: t for key, t in tensors.items() if key.startswith(prefix)}
        for name, (prefix, _) in KARLO[stage].items()
    }
    for path in sorted(path for path in base.rglob("*") if path.is_file()):
        inner = path.relative_to(base)
        is_weights = path.suffix in (".safetensors", ".bin", ".pt") or path.name.endswith(".index.json")
        replaced = is_weights and (inner.parts[0] in written or (output / inner.parts[0] / WEIGHTS).is_file())
        if inner.name != INDEX and not replaced:
            _bring(path, output / inner)
    for name, part in written.items():
        prefix, rules = KARLO[stage][name]
        entries = [_entry(key.removeprefix(prefix), tensor, rules, dtype) for key, tensor in part.items()]
        stream_weights(output / name / WEIGHTS, entries)
    write_whole(output / INDEX, (base / INDEX).read_bytes())


def _entry(key: str, tensor: Tensor, rules: names.Rules, dtype: torch.dtype) -> Entry:
    own = torch.float32 if key in STATISTICS else dtype
    return Entry(names.renamed(key, rules), own, tuple(tensor.shape), lambda: tensor.detach())


def _bring(source: Path, target: Path) -> None:
    """Have the file in both places: large ones as a second name of the same bytes, where the disk can do that.

    Files are replaced by renaming and never written into, so that neither place changes the other. What the target
    folder has already, whole as it must be, stays.
    """
    if target.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.stat().st_size >= LINKED:
        try:
            os.link(source, target)
            return
        except OSError:
            pass  # Another disk, or one without links: copied below.
    with whole_file(target) as copy, open(source, "rb") as original:
        shutil.copyfileobj(original, copy)
