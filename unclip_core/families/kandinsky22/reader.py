"""A decoder folder and a prior folder of Kandinsky 2.2 as one model."""

import re
from pathlib import Path

import torch
from torch import Tensor

from ...models import Clip, Decoder, ImageCodec, MissingPart, PartReader, Prior, Upsampler
from ...weights.files import CheckpointError
from ..registry import INDEX
from .decoder_reader import DecoderFolder
from .prior_reader import PriorFolder


class KandinskyFolder:
    """Reads the decoder of one folder, CLIP and prior of another, which may be missing, or each of its own."""

    small = False

    def __init__(self, own: DecoderFolder, prior: PartReader | None, *, clip: PartReader | None = None) -> None:
        """Join them; without `clip` it is the prior's folder that has it.

        Raises CheckpointError where the embeddings of prior and decoder do not fit each other.
        """
        if prior is not None and prior.family != own.family:
            raise CheckpointError(
                f"The decoder '{own.files.folder}' takes embeddings of the family '{own.family}', the prior's folder "
                f"makes some of '{prior.family}': take a prior of the decoder's own family."
            )
        self.own, self.other, self.family = own, prior, own.family
        self.clips = prior if clip is None else clip
        there = ({"prior"} & prior.parts if prior else set()) | ({"clip"} & self.clips.parts if self.clips else set())
        self.parts = frozenset({"decoder"} | there)

    def check(self) -> None:
        """Compare keys and shapes of all components with their configurations; no weights are read."""
        for folder in dict.fromkeys([self.own, self.other, self.clips]):
            if folder is not None:
                folder.check()

    def clip(self) -> Clip:
        """CLIP, of the prior's folder or its own."""
        return self._there(self.clips, "clip").clip()

    def prior(self) -> Prior:
        """The prior, of its folder."""
        return self._there(self.other, "prior").prior()

    def decoder(self) -> Decoder:
        """The decoder."""
        return self.own.decoder(self.empty_picture if "clip" in self.parts else None)

    def codec(self) -> ImageCodec:
        """The decoder's image codec alone."""
        return self.own.codec()

    def upsampler(self) -> Upsampler:
        """There is none."""
        raise MissingPart(f"The model '{self.own.files.folder.name}' has no 'upsampler': its decoder draws large.")

    @torch.no_grad()
    def empty_picture(self) -> Tensor:
        """CLIP's embedding `[D]` of a picture that is 0 once it is normalised, which stands for "no image".

        Raises:
            CheckpointError: CLIP reads no images.
        """
        if isinstance(self.clips, PriorFolder):
            return self.clips.empty_picture()
        adapter = self.clip().adapter
        if not adapter.has_vision:
            raise CheckpointError(
                f"'{self.own.files.folder}' has no image encoder beside it, which the decoder's guidance needs once: "
                "take a prior's folder with an 'image_encoder', or set guidance_scale to 1."
            )
        weight = next(adapter.model.parameters())
        side = adapter.image_size
        return adapter.read_pixels(torch.zeros(1, 3, side, side, device=weight.device))[0].float()

    def _there(self, folder: PartReader | None, part: str) -> PartReader:
        if folder is None:
            raise MissingPart(
                f"The model '{self.own.files.folder.name}' has no '{part}': no prior's folder is joined with it."
            )
        return folder


def named_prior(folder: Path) -> str | None:
    """The repository "owner/name" that a decoder's card names as its prior, in the front matter of README.md."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    _, mark, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    found = re.search(r"^prior:\s*(?:\n\s*-)?\s*['\"]?([\w.-]+/[\w.-]+)", rest.partition("\n---")[0], re.MULTILINE)
    return found[1] if mark and found else None


def find_prior(folder: Path) -> Path | None:
    """The folder of the prior that a decoder's card names: beside the decoder's, or in the hub's cache.

    The hub's cache has models--OWNER--NAME/snapshots/REVISION; of several revisions the newest is taken.
    """
    repository = named_prior(folder)
    if repository is None:
        return None
    owner, _, name = repository.partition("/")
    cached = folder.absolute().parent.parent.parent / f"models--{owner}--{name}" / "snapshots"
    beside = folder.absolute().parent / name
    if (beside / INDEX).is_file():
        return beside
    revisions = [path for path in cached.iterdir() if (path / INDEX).is_file()] if cached.is_dir() else []
    return max(revisions, key=lambda path: path.stat().st_mtime, default=None)
