"""Karlo as a family: two layouts of the same nets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...models import PartReader, UnclipModel
from ..registry import CONFIG, INDEX, Family, Source, TrainedPart

PIPELINES = ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")
LICENCE = (
    "CreativeML Open RAIL-M; by it you agree to its use restrictions: "
    "https://github.com/kakaobrain/karlo/blob/main/LICENSE"
)


class KarloFamily(Family):
    """kakaobrain's Karlo v1-alpha and models of its architecture, in diffusers' layout or in kakaobrain's files."""

    name = "karlo"
    formats = PIPELINES
    sources = {
        "karlo": Source("kakaobrain/karlo-v1-alpha", LICENCE),
        "karlo-variations": Source("kakaobrain/karlo-v1-alpha-image-variations", LICENCE),
    }

    def detect(self, folder: Path, index: Mapping[str, Any] | None) -> bool:
        """Detect by the pipeline that the index names; without an index, by the keys of kakaobrain's files.

        A folder with a `config.json` holds a single component, and kakaobrain's have none: its files, which may be
        anybody's and of any size, are not opened.
        """
        if index is not None:
            return index.get("_class_name") in PIPELINES
        if (folder / CONFIG).is_file():
            return False
        from .kakao_reader import weight_files

        return bool(weight_files(folder))

    def read(self, folder: Path, dtype: torch.dtype, conventions: str) -> PartReader:
        """Return a `KarloFolder`, or a `KakaoFolder` where there is no index."""
        from ..detect import read_any_index
        from .kakao_reader import KakaoFolder
        from .reader import KarloFolder

        if not (folder / INDEX).exists():
            return KakaoFolder(folder, dtype, conventions)
        return KarloFolder(folder, read_any_index(folder), dtype, conventions)

    def convert(self, model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
        """Write a folder in diffusers' layout, component after component."""
        from .convert import convert

        return convert(model, target, dtype)

    def check_trainable(self, model: UnclipModel, stage: str, new: bool, output: Path) -> None:
        """Prior, decoder and first upsampler of a folder in diffusers' layout, from its weights, into another one."""
        from .trained import check_trainable

        check_trainable(model, stage, new, output)

    def write_trained(self, base: UnclipModel | None, output: Path, part: TrainedPart) -> None:
        """Into a copy of the base's folder; the copy of a large file is a second name of it where the disk can."""
        from .trained import write_trained

        if base is None:
            raise ValueError("Karlo's parts are trained on from a base, and there is none.")
        write_trained(base.folder, output, part)


FAMILY = KarloFamily()
