"""The vocabulary of a new CLIP: learned from the captions, or read from a file of words or of byte pairs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path

from ..clip.adapter import pieces_of, words_in
from ..clip.tokenizer import END_OF_WORD, ClipTokenizer, byte_vocabulary, joined
from ..data.samples import BadSample, Collection
from ..parsing import MalformedInput, read_text
from .config import CAPTIONS

KEPT = "vocabulary.txt"
"""The file beside the checkpoint that keeps the pairs, so that a training goes on with the same."""
BYTES = 512 + 2
"""Tokens that every vocabulary has: 256 bytes, each also as the end of a word, and start and end of text."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """The byte pairs of a CLIP's tokenizer, the strongest first, and its words where these are a closed list."""

    pairs: tuple[Pair, ...]
    words: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return BYTES + len(self.pairs)

    @property
    def merges(self) -> str:
        """The pairs as a CLIP's configuration keeps them, one a line."""
        return "\n".join(" ".join(pair) for pair in self.pairs)


def new_vocabulary(
    name: str, size: int, collection: Collection, kept: Path | None, known: Vocabulary | None = None
) -> Vocabulary | None:
    """Make the vocabulary that a configuration names.

    Args:
        name: "captions", the file of `read_vocabulary`, or "" for OpenAI's, which is None here.
        size: of the one that is learned from captions, at most.
        collection: whose captions these are.
        kept: the file of the training that goes on, whose pairs are taken as they are; None for a new training.
        known: a vocabulary that the one of captions goes on from.

    Raises:
        ValueError: the file cannot be used, or no caption holds a word.
    """
    if not name:
        return None
    if name != CAPTIONS:
        return read_vocabulary(Path(name))
    old = known or Vocabulary(())
    if kept is not None and not old.words:
        return _kept(kept)
    counts = word_counts(_captions(collection), old.pairs)
    if not counts:
        raise ValueError("No caption holds a word from which a vocabulary could be learned.")
    words = _words(old.words, collection) if old.words else ()
    if kept is not None:
        return Vocabulary(_kept(kept).pairs, words)
    if size <= old.size:
        raise ValueError(f"vocabulary_size {size} leaves no room beside the {old.size:,} tokens that there are.")
    return Vocabulary((*old.pairs, *learn_pairs(counts, size - old.size)), words)


def _kept(path: Path) -> Vocabulary:
    """The pairs of a training that goes on; none where its captions are single letters."""
    return read_vocabulary(path) if read_text(path).strip() else Vocabulary(())


def _words(known: Iterable[str], collection: Collection) -> tuple[str, ...]:
    """The known words and all of the captions, in writing without blanks their letters."""
    found = {word for caption in _captions(collection) for word in words_in(caption)}
    return tuple(sorted({*known, *(piece for word in found for piece in pieces_of(word))}))


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a vocabulary: a word a line, each of which becomes one token, or a byte pair a line (merges.txt).

    Raises:
        ValueError: the file cannot be read, is empty, or mixes words and pairs.
    """
    try:
        lines = [line.split() for line in read_text(path).splitlines()]
    except (OSError, MalformedInput) as error:
        raise ValueError(f"The vocabulary '{path}' cannot be read ({error}).") from error
    lines = [line for line in lines if line and not line[0].startswith("#version")]
    lengths = {len(line) for line in lines}
    if lengths == {2}:
        return Vocabulary(tuple((first, second) for first, second in lines))
    if lengths == {1}:
        words = tuple(sorted({line[0].lower() for line in lines}))
        return Vocabulary(tuple(learn_pairs(word_counts(words))), words)
    raise ValueError(f"The vocabulary '{path}' must hold one word a line, or one pair of tokens a line.")


def word_counts(texts: Iterable[str], pairs: Sequence[Pair] = ()) -> dict[tuple[str, ...], int]:
    """Count the words of texts as CLIP's tokenizer splits them, each as its bytes' letters, the last ending it.

    Letters that `pairs` join are joined.
    """
    names = byte_vocabulary(pairs)
    letters = {number: name for name, number in names.items()}
    tokenizer = ClipTokenizer(names, pairs, 3)
    counts: Counter[tuple[str, ...]] = Counter()
    pieces = Counter(piece for text in texts for piece in text.lower().split())
    for piece, count in pieces.items():
        word: list[str] = []
        for number in tokenizer.encode(piece):
            word.append(letters[number])
            if word[-1].endswith(END_OF_WORD):
                counts[tuple(word)] += count
                word = []
    return dict(counts)


def learn_pairs(counts: Mapping[tuple[str, ...], int], limit: int | None = None) -> list[Pair]:
    """Learn byte pairs (Sennrich et al. 2016, algorithm 1) of counted words; the same words give the same pairs.

    Args:
        counts: words as `word_counts` gives them.
        limit: of pairs; None goes on until each word is one token.
    """
    words = [list(word) for word in sorted(counts)]
    weights = [counts[tuple(word)] for word in words]
    totals: Counter[Pair] = Counter()
    places: dict[Pair, set[int]] = {}
    for number, word in enumerate(words):
        _count(word, number, weights[number], totals, places)
    heap = [(-total, pair) for pair, total in totals.items()]
    heapify(heap)
    pairs: list[Pair] = []
    while heap and (limit is None or len(pairs) < limit):
        total, best = heappop(heap)
        if totals.get(best) != -total:
            continue  # counted anew since
        pairs.append(best)
        changed: set[Pair] = set()
        for number in sorted(places[best]):
            changed |= _count(words[number], number, -weights[number], totals, places)
            words[number] = joined(words[number], best)
            changed |= _count(words[number], number, weights[number], totals, places)
        for pair in changed & totals.keys():
            heappush(heap, (-totals[pair], pair))
    return pairs


def _count(word: list[str], number: int, weight: int, totals: Counter[Pair], places: dict[Pair, set[int]]) -> set[Pair]:
    """Add a word's pairs, or with a negative weight take them away; returns them."""
    pairs = list(zip(word, word[1:], strict=False))
    for pair in pairs:
        totals[pair] += weight
        if weight > 0:
            places.setdefault(pair, set()).add(number)
        else:
            places[pair].discard(number)
            if not totals[pair]:
                del totals[pair]
    return set(pairs)


def _captions(collection: Collection) -> Iterator[str]:
    """The captions that can be read; training names the others."""
    for index in range(len(collection)):
        try:
            yield from collection.captions(index)
        except BadSample:
            continue
