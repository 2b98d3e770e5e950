"""Kandinsky 2.2 as a family: decoder folders, each joined with the prior's folder that it names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...models import PartReader, UnclipModel
from ..registry import Family, Source, TrainedPart

_KINDS = ("", "Img2Img", "Inpaint", "Controlnet", "ControlnetImg2Img")
DECODERS = tuple(f"KandinskyV22{kind}Pipeline" for kind in _KINDS)
PRIORS = ("KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline")
LICENCE = "Apache License 2.0: https://www.apache.org/licenses/LICENSE-2.0"
NEEDS = ("kandinsky-2-2-prior",)
PUBLISHED = "kandinsky-community/kandinsky-2-2"


class KandinskyFamily(Family):
    """Kandinsky 2.2 (ai-forever, 2023) in diffusers' layout: text to image, inpainting and controlnet-depth."""

    name = "kandinsky22"
    formats = DECODERS + PRIORS
    sources = {
        "kandinsky-2-2-prior": Source(f"{PUBLISHED}-prior", LICENCE),
        "kandinsky-2-2": Source(f"{PUBLISHED}-decoder", LICENCE, NEEDS),
        "kandinsky-2-2-inpaint": Source(f"{PUBLISHED}-decoder-inpaint", LICENCE, NEEDS),
        "kandinsky-2-2-controlnet-depth": Source(f"{PUBLISHED}-controlnet-depth", LICENCE, NEEDS),
    }

    def detect(self, folder: Path, index: Mapping[str, Any] | None) -> bool:
        """Detect by the pipeline that the index names."""
        return index is not None and index.get("_class_name") in self.formats

    def read(self, folder: Path, dtype: torch.dtype, conventions: str) -> PartReader:
        """Return a `PriorFolder` or a `KandinskyFolder`.

        The latter is joined with the prior's folder that the decoder's card names, if it is there.
        """
        from ..detect import family_of, read_any_index
        from .decoder_reader import DecoderFolder
        from .prior_reader import PriorFolder
        from .reader import KandinskyFolder, find_prior

        index = read_any_index(folder)
        if index.get("_class_name") in PRIORS:
            return PriorFolder(folder, index, dtype, conventions)
        own = DecoderFolder(folder, index, dtype)
        prior = find_prior(folder)
        return KandinskyFolder(own, None if prior is None else family_of(prior).read(prior, dtype, conventions))

    def beside(self, folder: Path) -> list[Path]:
        """Return the prior's folder that a decoder's card names."""
        from ..detect import read_any_index
        from .reader import find_prior

        prior = None if read_any_index(folder).get("_class_name") in PRIORS else find_prior(folder)
        return [] if prior is None else [prior]

    def with_prior(self, reader: PartReader, chosen: PartReader, folder: Path) -> PartReader:
        """As every family, and a decoder's "no image" is seen by the CLIP that it is then used with."""
        from ..other_prior import check_prior
        from .reader import KandinskyFolder

        if not isinstance(reader, KandinskyFolder):
            return super().with_prior(reader, chosen, folder)
        check_prior(reader, chosen, folder)
        return KandinskyFolder(reader.own, chosen, clip=reader.clips if "clip" in reader.parts else chosen)

    def convert(self, model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
        """Write a prior's folder, or a decoder's: the decoder alone, its card names the prior as before."""
        from .decoder_writer import write_decoder
        from .prior_writer import convert_prior
        from .reader import named_prior

        if not model.has("decoder"):
            return convert_prior(model, target, dtype)
        return write_decoder(target, model.reader.decoder(), dtype, prior=named_prior(model.folder))

    def check_trainable(self, model: UnclipModel, stage: str, new: bool, output: Path) -> None:
        """Prior and decoder (of text to image), each from its own folder's weights, into another folder."""
        from .trained import check_trainable

        check_trainable(model, stage, new, output)

    def write_trained(self, base: UnclipModel | None, output: Path, part: TrainedPart) -> None:
        """Into a copy of the base's folder; the copy of a large file is a second name of it where the disk can."""
        from .trained import write_trained

        if base is None:
            raise ValueError("Kandinsky's parts are trained on from a base, and there is none.")
        write_trained(base.folder, output, part)


FAMILY = KandinskyFamily()
