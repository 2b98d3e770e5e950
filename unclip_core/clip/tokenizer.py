"""CLIP's byte-pair tokenizer (Radford et al. 2021, section 2.4; Sennrich et al. 2016), of any vocabulary.

Two conventions exist for what comes before the pairs. "native" is OpenAI's: mended by ftfy, HTML entities resolved.
"diffusers" is that of a transformers tokenizer, whose padding token is special wherever it stands: with Karlo's "!"
each exclamation mark of a prompt becomes id 0.
"""

import gzip
import html
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..parsing import checked, read_json, read_text
from ..weights.config_checks import MAX_CONFIG_BYTES, refused

T = TypeVar("T")
CONVENTIONS = ("native", "diffusers")
START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Prompts to padded token ids.

    Args:
        vocabulary: id by token.
        merges: the pairs, the first the strongest.
        context_length: ids of a row.
        pad: the token that fills rows up; None fills with 0.
        conventions: see the module.

    Raises:
        ValueError: unknown conventions, or a vocabulary without start, end or padding.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        context_length: int,
        pad: str | None = None,
        conventions: str = "native",
    ) -> None:
        import regex

        if conventions not in CONVENTIONS:
            raise ValueError(f"unknown conventions {conventions!r}; known: {', '.join(CONVENTIONS)}")
        if pad == "":
            raise ValueError("the padding token is empty")
        if missing := [token for token in (START, END, pad) if token is not None and token not in vocabulary]:
            raise ValueError(f"the vocabulary of {len(vocabulary):,} tokens lacks {missing}")
        self.vocabulary, self.merges = dict(vocabulary), list(merges)
        self.context_length, self.pad, self.conventions = context_length, pad, conventions
        special = {START, END} | ({pad} if pad and conventions == "diffusers" else set())
        self._special = {token: vocabulary[token] for token in special}
        longest_first = sorted(special, key=len, reverse=True)
        self._pattern = regex.compile("|".join([*map(regex.escape, longest_first), _WORDS]), regex.IGNORECASE)
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._split = lru_cache(maxsize=10_000)(self._pairs_joined)

    @property
    def pad_id(self) -> int:
        """The id that fills rows up."""
        return 0 if self.pad is None else self.vocabulary[self.pad]

    def encode(self, prompt: str) -> list[int]:
        """The ids of a prompt, without start and end."""
        ids: list[int] = []
        for word in self._pattern.findall(self._clean(prompt)):
            if word in self._special:
                ids.append(self._special[word])
            else:
                # A token that the vocabulary lacks is read as the end of text, as transformers does.
                ids += [self.vocabulary.get(token, self.vocabulary[END]) for token in self._split(word)]
        return ids

    def without_tokens(self, prompt: str) -> list[str]:
        """The words of a prompt that the vocabulary lacks tokens for, each once; they are read as the end of text."""
        words = [word for word in self._pattern.findall(self._clean(prompt)) if word not in self._special]
        return list(dict.fromkeys(word for word in words if any(t not in self.vocabulary for t in self._split(word))))

    def counts(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, start and end included, before any cut."""
        return [len(self.encode(prompt)) + 2 for prompt in prompts]

    def rows(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids `[B, T]` int64, padded, and lengths `[B]`; a prompt too long is cut, its end of text kept."""
        ids = torch.full((len(prompts), self.context_length), self.pad_id, dtype=torch.int64)
        lengths = []
        for row, prompt in zip(ids, prompts, strict=True):
            body = self.encode(prompt)[: self.context_length - 2]
            row[: len(body) + 2] = torch.tensor([self.vocabulary[START], *body, self.vocabulary[END]])
            lengths.append(len(body) + 2)
        return ids, torch.tensor(lengths)

    def ends(self, ids: Tensor) -> Tensor:
        """Where the first end of text of each row `[B, T]` stands, `[B]`."""
        return (ids == self.vocabulary[END]).int().argmax(dim=-1)

    def _clean(self, text: str) -> str:
        if self.conventions == "native":
            if not (text.isascii() and text.isprintable() and "&" not in text):  # in such a text nothing is to mend
                import ftfy

                text = html.unescape(html.unescape(ftfy.fix_text(text)))
        else:
            text = unicodedata.normalize("NFC", text)
        return " ".join(text.split()).lower()

    def _pairs_joined(self, word: str) -> tuple[str, ...]:
        """The tokens of one word: its bytes, joined pair by pair, the strongest pair first."""
        letters = [_BYTES[byte] for byte in word.encode("utf-8")]
        parts = [*letters[:-1], letters[-1] + END_OF_WORD]
        while len(parts) > 1:
            ranks = [self._ranks.get(pair, len(self._ranks)) for pair in zip(parts, parts[1:], strict=False)]
            best = min(ranks)
            if best == len(self._ranks):
                break
            parts = joined(parts, self.merges[best])
        return tuple(parts)


def joined(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Return `parts` with every occurrence of `pair`, from the left, made one."""
    result: list[str] = []
    index = 0
    while index < len(parts):
        hit = tuple(parts[index : index + 2]) == pair
        result.append(pair[0] + pair[1] if hit else parts[index])
        index += 2 if hit else 1
    return result


def _byte_letters() -> list[str]:
    """A visible letter for each byte: those that have none in Latin-1 take those from 256 on, in order."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    letters, spare = [], 256
    for byte in range(256):
        letters.append(chr(byte if byte in visible else spare))
        spare += byte not in visible
    return letters


_BYTES = _byte_letters()


def byte_vocabulary(merges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """The vocabulary that merges imply, in OpenAI's order: bytes, bytes at a word's end, merges, start, end."""
    visible = [letter for letter in _BYTES if ord(letter) < 256] + [letter for letter in _BYTES if ord(letter) >= 256]
    tokens = [*visible, *(letter + END_OF_WORD for letter in visible), *("".join(pair) for pair in merges), START, END]
    return {token: index for index, token in enumerate(tokens)}


def openai_merges() -> list[tuple[str, str]]:
    """The 48,894 pairs of OpenAI's CLIP, from open_clip's own copy of them."""
    from importlib.util import find_spec

    try:
        spec = find_spec("open_clip")
    except ValueError:  # a module without a spec stands in its place
        spec = None
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("open_clip is not installed: OpenAI's merges of CLIP's tokens come with it")
    folder = Path(spec.origin).parent
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    return [(first, second) for first, second in map(str.split, lines[1 : 49152 - 256 - 2 + 1])]


def openai_tokenizer(context_length: int = 77, conventions: str = "native", pad: str = "!") -> ClipTokenizer:
    """The tokenizer of OpenAI's CLIP models, and of those that others trained with their vocabulary."""
    merges = openai_merges()
    return ClipTokenizer(byte_vocabulary(merges), merges, context_length, pad=pad, conventions=conventions)


@dataclass(frozen=True)
class _Model:
    """The "model" of a `tokenizer.json`."""

    vocab: dict[str, int]
    merges: list[str | tuple[str, str]]


@dataclass(frozen=True)
class _Token:
    """A token as an object."""

    content: str


@dataclass(frozen=True)
class _TokenizerFile:
    """What is read of a `tokenizer.json`."""

    model: _Model


@dataclass(frozen=True)
class _Special:
    """What `special_tokens_map.json` and `tokenizer_config.json` say of padding."""

    pad_token: str | _Token | None = None


def read_tokenizer(
    folder: Path, context_length: int, conventions: str = "native", size: int | None = None
) -> ClipTokenizer:
    """The tokenizer of a folder with `vocab.json` and `merges.txt`, or `tokenizer.json` in their place.

    Its padding is told by `special_tokens_map.json` or `tokenizer_config.json`.

    Args:
        folder: the folder.
        context_length: ids of a row.
        conventions: see the module.
        size: how many ids the text encoder knows; None does not check them.

    Raises:
        CheckpointError: a file is missing or not what it should be, or an id is one that the encoder does not know.
    """
    with refused(f"The tokenizer in '{folder}'"):
        vocabulary, pairs = _vocabulary_and_pairs(folder)
        merges = [tuple(pair.split(" ")) if isinstance(pair, str) else pair for pair in pairs]
        if bad := next((pair for pair in merges if len(pair) != 2), None):
            raise ValueError(f"'{' '.join(bad)}' is no pair")
        if size is not None and (odd := next((item for item in vocabulary.items() if not 0 <= item[1] < size), None)):
            raise ValueError(f"the token {odd[0]!r} has the id {str(odd[1])[:20]}; the text encoder has {size:,}")
        two_each = [(first, second) for first, second in merges]
        return ClipTokenizer(vocabulary, two_each, context_length, _pad_token(folder), conventions)


def _vocabulary_and_pairs(folder: Path) -> tuple[dict[str, int], list[str | tuple[str, str]]]:
    whole = folder / "tokenizer.json"
    if whole.is_file() and not (folder / "vocab.json").exists():
        model: _Model = _read(_TokenizerFile, whole).model
        return model.vocab, model.merges
    vocabulary: dict[str, int] = _read(dict[str, int], folder / "vocab.json")
    lines = read_text(folder / "merges.txt", MAX_CONFIG_BYTES).splitlines()
    return vocabulary, [line.strip() for line in lines if line.strip() and not line.startswith("#version")]


def write_tokenizer(tokenizer: ClipTokenizer, folder: Path) -> None:
    """Write the files that `read_tokenizer`, and transformers, read."""
    from ..weights.files import write_whole

    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.context_length,
        "do_lower_case": True,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": tokenizer.pad or END,
    }
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in tokenizer.merges), ""])
    write_whole(folder / "vocab.json", json.dumps(tokenizer.vocabulary, ensure_ascii=False).encode())
    write_whole(folder / "merges.txt", merges.encode())
    write_whole(folder / "tokenizer_config.json", json.dumps(config, indent=2).encode())


def _pad_token(folder: Path) -> str | None:
    """The padding token that the folder's configuration names, as text or as an object with its content."""
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            told: _Special = _read(_Special, folder / name)
            if told.pad_token is not None:
                return told.pad_token if isinstance(told.pad_token, str) else told.pad_token.content
    return None


def _read(expected: type[T], path: Path) -> T:
    return checked(expected, read_json(path, MAX_CONFIG_BYTES), f"'{path}'")
