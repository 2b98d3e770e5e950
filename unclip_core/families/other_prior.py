"""A model folder with the prior of another folder."""

from pathlib import Path

from ..models import Clip, Decoder, PartReader, Prior, Upsampler
from ..weights.files import CheckpointError


class OtherPrior:
    """Reads the prior of one folder, and everything else of a model; CLIP too where the model has none of its own."""

    small = False

    def __init__(self, model: PartReader, chosen: PartReader) -> None:
        """Join the two, which `check_prior` has found to fit."""
        self.model, self.chosen, self.family = model, chosen, model.family
        self.parts = model.parts | ({"clip", "prior"} & chosen.parts)

    def check(self) -> None:
        """Compare keys and shapes of both folders with their configurations; no weights are read."""
        self.model.check()
        self.chosen.check()

    def clip(self) -> Clip:
        """CLIP."""
        return (self.model if "clip" in self.model.parts else self.chosen).clip()

    def prior(self) -> Prior:
        """The prior that was chosen."""
        return self.chosen.prior()

    def decoder(self) -> Decoder:
        """The model's decoder."""
        return self.model.decoder()

    def upsampler(self) -> Upsampler:
        """The model's upsampler."""
        return self.model.upsampler()


def check_prior(model: PartReader, chosen: PartReader, folder: Path) -> None:
    """Refuse a prior that does not go with a model.

    Raises:
        CheckpointError: the chosen `folder` has no prior, or its embeddings are another family's, or of another width.
    """
    if "prior" not in chosen.parts:
        raise CheckpointError(f"'{folder}' was chosen as the prior's folder, and it has no prior.")
    if chosen.family != model.family:
        raise CheckpointError(
            f"The prior of '{folder}' makes embeddings of the family '{chosen.family}', the model reads those of "
            f"'{model.family}': choose a prior of that family, and of that width."
        )
