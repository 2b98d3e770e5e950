"""A text tower that is trained against an image tower which stays as it is, on several captions of each image."""

import json

import pytest
import torch
from own_data import FILES, write_shard
from own_training import NAMES, config_of, train, write_images

from unclip.unclip_core.data.center_crop import center_crop
from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.train.new_tokens import RIDGE, ridge
from unclip.unclip_core.train.vocabulary import Vocabulary, new_vocabulary
from unclip.unclip_core.weights.files import load_weights

WORDS = {"anchor": "çapa", "bell": "zil", "cloud": "bulut"}


def locked_config(base, steps, **training):
    training = {"optimizer": "muon", "lr": 5e-3, "ema": 0.8} | training
    config = config_of("clip", steps, base=str(base), **training)
    del config["net"]
    return config | {"start": "base", "freeze": "image", "vocabulary": "captions"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model of all four parts, its CLIP trained for a while."""
    folder = tmp_path_factory.mktemp("locked")
    images = write_images(folder / "images")
    for stage, steps in {"clip": 40, "prior": 1, "decoder": 1, "upsampler": 1}.items():
        words = {"vocabulary": "captions"} if stage == "clip" else {}
        assert train(stage, images, folder / "base", config_of(stage, steps) | words) == 0
    return folder / "base"


def shards(folder):
    """The same images, each with captions in two languages."""
    images = write_images(folder / "images")
    files = {}
    for name in NAMES:
        files[f"{name}.png"] = (images / f"{name}.png").read_bytes()
        said = [f"a {name}", f"bir {WORDS.get(name, name[::-1])}"]
        files[f"{name}.json"] = json.dumps({"captions": said}, ensure_ascii=False).encode()
    write_shard(folder / "0.tar", files)
    return folder / "0.tar"


def test_the_image_tower_stays_bit_by_bit_and_new_words_are_learned(base, tmp_path):
    assert train("clip", shards(tmp_path), tmp_path / "m", locked_config(base, 120)) == 0
    before, after = (load_weights(folder / "clip.safetensors")[0] for folder in (base, tmp_path / "m"))
    visual = [name for name in before if name.startswith("visual.")]
    assert visual and all(torch.equal(before[name], after[name]) for name in visual)
    assert not torch.equal(before["text_projection"], after["text_projection"])
    clip = load_model(tmp_path / "m").clip.adapter
    data = open_images(str(tmp_path / "0.tar"))
    said = [data.captions(number) for number in range(len(data))]
    squares = torch.stack([center_crop(data.read(n).image, 16) for n in range(len(data))])
    pictures = clip.encode_image(squares.float() / 255)
    for language in (0, 1):
        texts = clip.encode_text([captions[language] for captions in said]).embeds
        right = (texts @ pictures.T).argmax(dim=1) == torch.arange(len(data))
        assert right.float().mean() >= 0.75


def test_the_result_keeps_its_share_of_the_base(base, tmp_path):
    """Wortsman et al. 2022: (1 - share) * trained + share * base, of each weight."""
    data, config = shards(tmp_path), locked_config(base, 4, save_dtype="fp32") | {"vocabulary": ""}
    assert train("clip", data, tmp_path / "plain", config) == 0
    for stop in (2, 0):  # one that goes on after a stop keeps the base too, and not where it stopped
        training = config["training"] | {"stop": stop}
        assert train("clip", data, tmp_path / "kept", config | {"keep_base": 0.25, "training": training}) == 0
    before, plain, kept = (load_weights(tmp_path / m / "clip.safetensors")[0] for m in (base, "plain", "kept"))
    moved = [name for name in before if not torch.equal(plain[name], before[name].float())]
    assert "text_projection" in moved and "token_embedding.weight" in moved
    for name in before:
        expected = 0.75 * plain[name].double() + 0.25 * before[name].double()
        torch.testing.assert_close(kept[name].double(), expected, rtol=0, atol=1e-6)


def test_the_bases_other_parts_go_on_and_a_stopped_run_goes_on(base, tmp_path):
    data, config = shards(tmp_path), locked_config(base, 4, stop=2, held_out=4, sample_every=1)
    assert train("clip", data, tmp_path / "m", config) == 0
    model = load_model(tmp_path / "m")
    assert all(model.has(part) for part in ("clip", "prior", "decoder", "upsampler"))
    held = (tmp_path / "m" / "training" / "clip" / "held_out.jsonl").read_text().splitlines()
    assert {"image_to_text", "text_to_image"} <= set(json.loads(held[0]))
    for part in ("prior", "decoder", "upsampler"):
        name = f"{part}.safetensors"
        assert (tmp_path / "m" / name).read_bytes() == (base / name).read_bytes()
    after = config_of("prior", 1, optimizer="muon") | {"start": "base"}
    del after["net"]
    assert train("prior", data, tmp_path / "m", after) == 0


def test_words_that_both_vocabularies_have_keep_their_embedding(base, tmp_path):
    config = locked_config(base, 1, lr=0.0, weight_decay=0.0)
    assert train("clip", shards(tmp_path), tmp_path / "m", config) == 0
    old, new = (load_model(folder).clip.adapter for folder in (base, tmp_path / "m"))
    known = set(old.tokenizer.vocabulary) & set(new.tokenizer.vocabulary)
    assert len(known) > 400 and len(new.tokenizer.vocabulary) != len(old.tokenizer.vocabulary)
    tables = [clip.model.token_embedding.weight for clip in (old, new)]
    for token in known:
        ids = [clip.tokenizer.vocabulary[token] for clip in (old, new)]
        torch.testing.assert_close(tables[1][ids[1]], tables[0][ids[0]], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stage", "change", "said"),
    [
        ("clip", {"start": "scratch", "net": {"preset": "tiny"}}, "freeze goes with a CLIP of a base"),
        ("prior", {"vocabulary": ""}, "freeze goes with a CLIP of a base"),
        ("clip", {"freeze": ""}, "vocabulary goes with a new CLIP"),
        ("clip", {"freeze": "text"}, "freeze must be one of"),
        ("clip", {"freeze": "towers", "vocabulary": ""}, "embeds new words alone"),
        (
            "clip",
            {"start": "scratch", "freeze": "", "net": {"preset": "tiny"}, "keep_base": 1},
            "keep_base goes with",
        ),
        ("clip", {"keep_base": 1.5}, "keep_base must be"),
    ],
)
def test_what_does_not_go_together_is_said(base, tmp_path, stage, change, said):
    with pytest.raises(ValueError, match=said):
        train(stage, shards(tmp_path), tmp_path / "m", locked_config(base, 1) | change)


def test_several_captions_of_an_image(tmp_path):
    files = {"a.png": FILES["a.png"], "b.png": FILES["b.png"], "b.txt": b"one", "c.png": FILES["c.png"]}
    files["a.json"] = json.dumps({"caption": "first", "captions": [" second ", 3, ""]}).encode()
    files["c.json"] = b"[]"
    data = open_images(str(write_shard(tmp_path / "0.tar", files)))
    assert [data.captions(n) for n in range(3)] == [["first", "second"], ["one"], []]
    assert [data.caption(n) for n in range(3)] == ["first", "one", ""]


def test_new_words_alone_are_embedded_and_all_else_stays(base, tmp_path):
    config = locked_config(base, 60, lr=1e-2, weight_decay=0.0) | {"freeze": "towers"}
    assert train("clip", shards(tmp_path), tmp_path / "m", config) == 0
    old, new = (load_model(folder).clip.adapter for folder in (base, tmp_path / "m"))
    before, after = old.model.state_dict(), new.model.state_dict()
    for name in set(before) - {"token_embedding.weight"}:
        assert torch.equal(before[name], after[name]), name
    table = after["token_embedding.weight"]
    for token, number in old.tokenizer.vocabulary.items():
        assert torch.equal(before["token_embedding.weight"][number], table[new.tokenizer.vocabulary[token]]), token
    assert len(new.tokenizer.vocabulary) > len(old.tokenizer.vocabulary)
    english = [f"a {name}" for name in NAMES]
    torch.testing.assert_close(new.encode_text(english).embeds, old.encode_text(english).embeds)


def test_new_tokens_begin_where_other_captions_put_them():
    torch.manual_seed(0)
    truth = torch.randn(30, 5)
    counts = torch.randint(0, 3, (400, 30)).float()
    found = ridge(counts.to_sparse_coo(), counts @ truth)
    exact = torch.linalg.solve(counts.T @ counts + RIDGE * torch.eye(30), counts.T @ counts @ truth)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)


def test_a_word_for_a_word_is_known_without_a_step(base, tmp_path):
    config = locked_config(base, 1, lr=0.0, weight_decay=0.0) | {"freeze": "towers"}
    assert train("clip", shards(tmp_path), tmp_path / "m", config) == 0
    clip = load_model(tmp_path / "m").clip.adapter
    table = clip.model.token_embedding.weight
    for english, turkish in WORDS.items():
        said = [table[clip.tokenizer.encode(text)].sum(dim=0) for text in (f"a {english}", f"bir {turkish}")]
        assert torch.cosine_similarity(*said, dim=0) > 0.9


def test_a_closed_list_of_words_grows_by_the_captions_and_by_letters_where_there_are_no_blanks(tmp_path):
    files = {
        "a.png": FILES["a.png"],
        "a.json": json.dumps({"captions": ["a cat", "красный кот", "3d風の赤い猫"]}).encode(),
    }
    data = open_images(str(write_shard(tmp_path / "0.tar", files)))
    known = Vocabulary((("c", "a"), ("ca", "t</w>")), ("a", "cat"))
    found = new_vocabulary("captions", 700, data, None, known)
    assert found.pairs[:2] == known.pairs and len(found.pairs) > 10
    assert set(found.words) == {"a", "cat", "красный", "кот", "3d", *"風の赤い猫"}
    with pytest.raises(ValueError, match="leaves no room"):
        new_vocabulary("captions", 516, data, None, known)
