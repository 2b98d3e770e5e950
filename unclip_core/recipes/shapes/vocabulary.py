"""A small BPE vocabulary in which every word of a closed list is one token."""

from collections import Counter
from collections.abc import Iterable

_FIRST_PRINTABLE = set(range(ord("!"), ord("~") + 1))


def bpe_merges(words: Iterable[str]) -> str:
    """Byte-pair merges (Sennrich et al. 2016) learned until each of `words` is a single token; one pair a line.

    Raises:
        ValueError: a word has characters outside printable ASCII, which a byte-level vocabulary would split.
    """
    pieces = [_letters(word) for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while any(len(word) > 1 for word in pieces):
        counts = Counter(pair for word in pieces for pair in zip(word, word[1:], strict=False))
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    return "\n".join(f"{left} {right}" for left, right in merges)


def _letters(word: str) -> list[str]:
    if not word or not set(map(ord, word)) <= _FIRST_PRINTABLE:
        raise ValueError(f"The word {word!r} has characters outside printable ASCII; spell it without them.")
    return [*word[:-1], word[-1] + "</w>"]


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged
