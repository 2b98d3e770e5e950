"""The weights of a component's folder: one file, or shards and their index."""

import re
from pathlib import Path

from ..listing import visible
from ..parsing import checked
from .config_checks import is_file_name, read_table, refused
from .files import CheckpointError
from .tensors import Tensors, open_file

_INDEX = re.compile(r"(?P<stem>.+)\.index(?P<variant>\.[^.]+)?\.json")
"""The name of an index of shards: "….safetensors.index.json", of a variant "….safetensors.index.fp16.json"."""
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.\w+")


_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
"""What diffusers and transformers call weights; any other name may be that of an optimizer, or of arguments."""


def open_component(folder: Path) -> Tensors:
    """The weights of a component's folder: one .safetensors, its shards, or a .bin.

    Of several those are taken that diffusers and transformers name so, before others; .safetensors before .bin; the
    plain one, not a variant ("….fp16.safetensors"), which is taken if it stands alone. Shards that no index names count
    for nothing beside a whole file. Hidden files are nobody's: other systems leave "._NAME" beside each NAME.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    whole: list[Path] = []
    strays: list[Path] = []
    for suffix in (".safetensors", ".bin"):
        found, alone = _weights(folder, suffix)
        whole, strays = [*whole, *found], [*strays, *alone]
        if any(map(_is_known, found)):
            break
    if whole:
        return _open(min(whole, key=_rank))
    if strays:
        names = sorted(path.name for path in strays)
        raise CheckpointError(f"'{folder}' holds the shards {names[:3]}, but no index ('….index.json') of them.")
    raise CheckpointError(f"'{folder}' holds no weights: neither a .safetensors nor a .bin file is there.")


def _weights(folder: Path, suffix: str) -> tuple[list[Path], list[Path]]:
    """Whole files and indexes of shards that end so, and shards that no index names."""
    found = {path for path in visible(folder, f"*{suffix}") if not path.is_dir()}
    indexes = [path for path in visible(folder, f"*{suffix}.index*.json") if _INDEX.fullmatch(path.name)]
    shards = {path.parent / name for path in indexes for name in _weight_map(path).values()}
    strays = [path for path in found - shards if _SHARD.fullmatch(path.name)]
    return [*indexes, *found.difference(shards, strays)], strays


def _open(path: Path) -> Tensors:
    return _open_shards(path) if _INDEX.fullmatch(path.name) else open_file(path)


def _is_known(path: Path) -> bool:
    return path.name.partition(".")[0] in _STEMS


def _rank(path: Path) -> tuple[bool, bool, int, int, str]:
    """What is smaller is taken first."""
    stem = path.name.partition(".")[0]
    place = _STEMS.index(stem) if stem in _STEMS else len(_STEMS)
    return place == len(_STEMS), ".bin" in path.suffixes, _variants(path), place, path.name


def _variants(path: Path) -> int:
    """How many variants ("fp16") a name states: 0 for the plain file or index."""
    index = _INDEX.fullmatch(path.name)
    name = f"{index['stem']}{index['variant'] or ''}" if index else path.name
    return name.count(".")


def _weight_map(index: Path) -> dict[str, str]:
    held = read_table(index).get("weight_map")
    with refused():
        weights: dict[str, str] = checked(dict[str, str], held, f"The weight_map of '{index}'")
    if outside := [name for name in weights.values() if not is_file_name(name)]:
        raise CheckpointError(f"'{index}' names files outside of its folder ({outside[:3]}): they are not read.")
    return weights


def _open_shards(index: Path) -> Tensors:
    weights = _weight_map(index)
    shards = {name: open_file(index.parent / name) for name in sorted(set(weights.values()))}
    for key, name in weights.items():
        if key not in shards[name].shapes:
            raise CheckpointError(f"'{index}' says that '{key}' is in '{name}', where it is not.")
    shapes = {key: shape for shard in shards.values() for key, shape in shard.shapes.items()}
    kinds = {key: kind for shard in shards.values() for key, kind in shard.kinds.items()}
    unlisted = {key: shard.source for shard in shards.values() for key in shard.shapes if key not in weights}
    files = {key: shards[name].source for key, name in weights.items()} | unlisted
    by_file = {shard.source: shard for shard in shards.values()}
    return Tensors(index.parent, shapes, lambda key: by_file[files[key]].read(key), files, kinds)
