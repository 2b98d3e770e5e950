"""The contract of a collection of captioned images, and the report of the samples left out."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import NamedTuple, Protocol

from PIL import Image

from ..output import legible


class Sample(NamedTuple):
    """An image (RGB, of any size), its caption ("" where none is asked for and there is none), and its name."""

    image: Image.Image
    caption: str
    name: str


class BadSample(ValueError):
    """A sample that cannot be used; the message says why, `name` says which, both in Unicode."""

    def __init__(self, name: str, reason: str) -> None:
        name, reason = legible(name), legible(reason)
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.name, self.reason)


class Collection(Protocol):
    """Captioned images by index, in an order that is the same for the same files."""

    @property
    def passed_over(self) -> Mapping[str, str]:
        """Name → reason of the files that make no sample, such as one of a format that is not read."""
        ...

    def __len__(self) -> int:
        """Count the samples, bad ones included."""
        ...

    def name(self, index: int) -> str:
        """Return the name of sample `index` (0..len - 1) without reading it."""
        ...

    def read(self, index: int, captions: bool = True) -> Sample:
        """Read sample `index` (0..len - 1); with `captions` one without a caption is a bad one.

        Raises:
            BadSample: the image is damaged or the caption is missing or no text.
        """
        ...

    def caption(self, index: int) -> str:
        """Read the caption of sample `index` alone, "" where it has none.

        Raises:
            BadSample: the caption is no text.
        """
        ...

    def captions(self, index: int) -> list[str]:
        """Read all captions of sample number `index`, `caption` the first of them; none where it has none.

        Raises:
            BadSample: a caption is no text.
        """
        ...

    def fingerprint(self) -> str:
        """Return a short text that changes when the files do."""
        ...


def samples(
    collection: Collection, bad: MutableMapping[str, str] | None = None, captions: bool = True
) -> Iterator[Sample]:
    """Yield every good sample in order; the bad ones are left out and noted in `bad` as name → reason."""
    for index in range(len(collection)):
        try:
            yield collection.read(index, captions)
        except BadSample as error:
            if bad is not None:
                bad[error.name] = error.reason


def summary(bad: Mapping[str, str], collection: Collection, named: int = 20) -> str:
    """Report what was left out: the number of samples and of other files, and the first `named` of each."""
    total, other = len(collection), collection.passed_over
    lines = [f"all {total:,} samples could be read"]
    if bad:
        lines = [f"{len(bad):,} of {total:,} samples were left out:", *_named(bad, named)]
    if other:
        lines += [f"{len(other):,} further files make no sample:", *_named(other, named)]
    return "\n".join(lines)


def _named(reasons: Mapping[str, str], named: int) -> list[str]:
    lines = [f"  {name}: {reason}" for name, reason in sorted(reasons.items())[:named]]
    more = len(reasons) - named
    return lines + ([f"  … and {more:,} more"] if more > 0 else [])
