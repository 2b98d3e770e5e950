"""The weights of a component's folder: one file, or shards and their index."""

import re
from pathlib import Path

from ..parsing import checked
from .config_checks import is_file_name, read_table, refused
from .files import CheckpointError
from .tensors import Tensors, open_file

_INDEX = re.compile(r"(?P<stem>.+)\.index(?P<variant>\.[^.]+)?\.json")
"""The name of an index of shards: "….safetensors.index.json", of a variant "….safetensors.index.fp16.json"."""
_SHARD = re.compile(r".+-\d{5}-of-\d{5}\.\w+")


def open_component(folder: Path) -> Tensors:
    """The weights of a component's folder: one .safetensors, its shards, or a .bin.

    Of several the plain one is taken, not a variant ("….fp16.safetensors"); a variant is taken if it stands alone.
    Shards that no index names count for nothing beside a whole file.

    Raises:
        CheckpointError: there are none, or a shard is missing.
    """
    for suffix in (".safetensors", ".bin"):
        found = {path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")}
        indexes = [path for path in folder.glob(f"*{suffix}.index*.json") if _INDEX.fullmatch(path.name)]
        shards = {path.parent / name for path in indexes for name in _weight_map(path).values()}
        strays = {path for path in found - shards if _SHARD.fullmatch(path.name)}
        if whole := [*indexes, *(found - shards - strays)]:
            plain = min(whole, key=lambda path: (_variants(path), path.name))
            return _open_shards(plain) if plain in indexes else open_file(plain)
        if strays:
            names = sorted(path.name for path in strays)
            raise CheckpointError(f"'{folder}' holds the shards {names[:3]}, but no index ('….index.json') of them.")
    raise CheckpointError(f"'{folder}' holds no weights: neither a .safetensors nor a .bin file is there.")


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
