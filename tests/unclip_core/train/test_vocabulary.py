"""A new CLIP's own vocabulary: pairs as byte-pair encoding finds them, words as single tokens, ids as they are kept."""

from collections import Counter

import pytest
from own_training import config_of, train, write_images

from unclip.unclip_core.clip.tokenizer import ClipTokenizer, byte_vocabulary
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.train.vocabulary import BYTES, KEPT, Vocabulary, learn_pairs, read_vocabulary, word_counts

TEXTS = ["a red cat, a red hat", "the cat sat", "kırmızı bir kedi", "красный кот", "赤い猫", "a cat's hat 12"]


def tokenizer_of(pairs):
    return ClipTokenizer(byte_vocabulary(pairs), pairs, 32)


def naive(counts, limit):
    """Algorithm 1 of Sennrich et al. 2016, word by word."""
    words = {word: count for word, count in counts.items()}
    pairs = []
    while len(pairs) < limit:
        totals = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:], strict=False):
                totals[pair] += count
        if not totals:
            break
        best = min(totals, key=lambda pair: (-totals[pair], pair))
        pairs.append(best)
        merged = {}
        for word, count in words.items():
            parts, index = [], 0
            while index < len(word):
                hit = word[index : index + 2] == best
                parts.append("".join(best) if hit else word[index])
                index += 2 if hit else 1
            merged[tuple(parts)] = merged.get(tuple(parts), 0) + count
        words = merged
    return pairs


@pytest.mark.parametrize("limit", [1, 7, 30, 10**6])
def test_pairs_are_those_of_byte_pair_encoding(limit):
    counts = word_counts([*TEXTS, "aaaa aaa banana bananas"])
    assert learn_pairs(counts, limit) == naive(counts, limit)


def test_with_all_pairs_every_word_of_any_language_is_one_token():
    counts = word_counts(TEXTS)
    tokenizer = tokenizer_of(learn_pairs(counts))
    assert tokenizer.counts(["a red cat", "kırmızı kedi", "赤い猫", "красный кот"]) == [5, 4, 3, 4]
    assert len(counts) == len({tuple(tokenizer.encode(text)) for text in ("a", "red", "cat")}) + len(counts) - 3


def test_a_file_of_words_and_one_of_pairs(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeffcat\nRed\n\nhat\n", encoding="utf-8")
    words = read_vocabulary(tmp_path / "words.txt")
    assert words.words == ("cat", "hat", "red")
    assert tokenizer_of(list(words.pairs)).counts(["red cat hat"]) == [5]
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{words.merges}\n", encoding="utf-8")
    assert read_vocabulary(tmp_path / "merges.txt") == Vocabulary(words.pairs)


@pytest.mark.parametrize("data", [b"", b"a b\nc\n", b"a b c\n", b"\xff\xfe\x00"])
def test_what_is_no_vocabulary_is_said(tmp_path, data):
    (tmp_path / "v.txt").write_bytes(data)
    with pytest.raises(ValueError, match="The vocabulary"):
        read_vocabulary(tmp_path / "v.txt")
    with pytest.raises(ValueError, match="cannot be read"):
        read_vocabulary(tmp_path / "none.txt")


def test_a_clip_with_the_captions_words_is_trained_goes_on_and_is_read_back(tmp_path):
    images = write_images(tmp_path / "images")
    config = config_of("clip", 2) | {"vocabulary": "captions", "vocabulary_size": 4096}
    assert train("clip", images, tmp_path / "m", config) == 0
    adapter = load_model(tmp_path / "m").clip.adapter
    assert adapter.tokenizer.counts(["a bell", "a cloud"]) == [4, 4]
    size = adapter.config.model["text_cfg"]["vocab_size"]
    assert size == BYTES + len(adapter.tokenizer.merges) < 600
    kept = (tmp_path / "m" / "training" / "clip" / KEPT).read_text()
    (images / "bell.txt").write_text("quite another word")
    config["training"]["steps"] = 3
    assert train("clip", images, tmp_path / "m", config) == 0
    assert (tmp_path / "m" / "training" / "clip" / KEPT).read_text() == kept


def test_a_vocabulary_of_a_training_that_left_no_checkpoint_is_learned_anew(tmp_path):
    images = write_images(tmp_path / "images", 4)
    config = config_of("clip", 1, batch=4) | {"vocabulary": "captions", "vocabulary_size": 4096}
    folder = tmp_path / "m" / "training" / "clip"
    folder.mkdir(parents=True)
    (folder / KEPT).write_text("z q</w>\n")
    assert train("clip", images, tmp_path / "m", config) == 0
    assert "z q" not in (folder / KEPT).read_text()
    assert load_model(tmp_path / "m").clip.adapter.tokenizer.counts(["a bell"]) == [4]


def test_captions_of_single_letters_need_no_pairs(tmp_path):
    images = write_images(tmp_path / "images", 4)
    for number, path in enumerate(sorted(images.glob("*.txt"))):
        path.write_text(str(number))
    config = config_of("clip", 1, batch=4) | {"vocabulary": "captions", "vocabulary_size": 4096}
    assert train("clip", images, tmp_path / "m", config) == 0
    config["training"]["steps"] = 2
    assert train("clip", images, tmp_path / "m", config) == 0  # goes on
    tokenizer = load_model(tmp_path / "m").clip.adapter.tokenizer
    assert len(tokenizer.vocabulary) == BYTES and tokenizer.counts(["0", "3"]) == [3, 3]


def test_a_vocabulary_goes_with_a_new_clip_alone(tmp_path):
    images = write_images(tmp_path / "images", 2)
    with pytest.raises(ValueError, match="vocabulary goes with a new CLIP"):
        train("upsampler", images, tmp_path / "m", config_of("upsampler", 1) | {"vocabulary": "captions"})
