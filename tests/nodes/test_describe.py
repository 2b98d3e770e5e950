"""The describe node: which list it takes, what it tells, and what it refuses."""

import os
from types import SimpleNamespace

import pytest
import torch

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import describe, host
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import EmbeddingValue, FamilyError
from unclip.unclip_core import pipelines
from unclip.unclip_core.embedding.phrase_lists import BUILT_IN, PhraseError
from unclip.unclip_core.families.loading import THINGS, load_model

NODE = NODE_CLASS_MAPPINGS["UnclipDescribe"]
LIST = "template: a {color} {shape}\ncolor:\nred\nblue\nshape:\ncircle\nsquare\n"


def told(clip, embedding, **widgets):
    with torch.inference_mode():
        returned = NODE().run(clip, embedding, **widgets)
    caption, scores = returned["result"]
    assert returned["ui"]["text"] == [scores]
    return caption, scores


def meaning(mine, *texts):
    return EmbeddingValue(mine.clip.part.adapter.encode_text(list(texts)).embeds, "test", "image")


@pytest.fixture
def folder(tmp_path):
    with host.working_in(tmp_path / "output", (tmp_path,)):
        yield tmp_path


def test_an_embedding_of_a_text_is_described_by_that_text(mine):
    caption, scores = told(mine.clip, meaning(mine, "a red circle", "a blue square"), custom=LIST, top_k=2)
    assert caption == "a red circle\na blue square"
    first, second = scores.split("\n\n")
    assert first.startswith("1.000  a red circle\n") and second.startswith("1.000  a blue square\n")
    assert len(first.split("\n")) == 2 + 2  # two captions, two slots
    assert "color: red 1.000 · blue" in first


def test_captions_that_do_not_fit_are_encoded_fewer_at_a_time(mine, monkeypatch, caplog):
    expected = told(mine.clip, meaning(mine, "a red circle"), custom=LIST)
    encode, seen = pipelines.embed_text, []

    def little_memory(clip, texts):
        seen.append(len(texts))
        if len(texts) > 1:
            raise torch.OutOfMemoryError("full")
        return encode(clip, texts)

    monkeypatch.setattr(pipelines, "embed_text", little_memory)
    found = told(mine.clip, meaning(mine, "a red circle"), custom=LIST)
    assert found == expected and max(seen) > 1
    assert "Describe: out of memory, trying again with 1 at a time." in caplog.messages


def test_lists_are_chosen_by_name_file_or_the_models_vocabulary(mine, folder):
    (folder / "mine.txt").write_text(LIST, encoding="utf-8")
    assert describe.phrase_names() == ["automatic", *BUILT_IN, "mine.txt"]
    assert NODE.INPUT_TYPES()["required"]["phrases"][0][-1] == "mine.txt"
    assert told(mine.clip, meaning(mine, "a blue circle"), phrases="mine.txt")[0] == "a blue circle"
    pictures = SimpleNamespace(adapter=SimpleNamespace(words=()))
    for clip, name in ((mine.clip.part, "world"), (pictures, "pictures"), (load_model(THINGS).clip, "things")):
        assert describe.choose("automatic", "", clip) == describe.choose(name, "", pictures)
    assert NODE.VALIDATE_INPUTS("mine.txt") is True and NODE.VALIDATE_INPUTS(None) is True


@pytest.mark.parametrize("name", ["nothing", "../mine.txt", "mine.txt", "", 3])
def test_lists_that_are_not_there_are_refused(mine, folder, name):
    with pytest.raises(InputError, match="no phrase list"):
        told(mine.clip, meaning(mine, "red"), phrases=name)
    assert "no phrase list" in NODE.VALIDATE_INPUTS(name)


def test_bad_input_is_refused_in_words(mine, other, folder):
    (folder / "empty.txt").write_text("# nothing here\n", encoding="utf-8")
    with pytest.raises(PhraseError, match=r"empty\.txt has no template"):
        told(mine.clip, meaning(mine, "red"), phrases="empty.txt")
    with pytest.raises(PhraseError, match="'custom', line 1"):
        told(mine.clip, meaning(mine, "red"), custom="just words")
    with pytest.raises(InputError, match="'top_k' is 0"):
        told(mine.clip, meaning(mine, "red"), top_k=0)
    with pytest.raises(FamilyError):
        told(other.clip, meaning(mine, "red"))


def test_words_that_the_model_has_never_seen_are_told_on_the_node(mine):
    with torch.inference_mode():
        returned = NODE().run(mine.clip, meaning(mine, "red"), custom=LIST.replace("circle", "donut"))
    assert "never seen 1 of the words" in returned["ui"]["text"][0] and "'donut'" in returned["ui"]["text"][0]
    assert "donut'" not in returned["result"][1]


def test_an_edited_list_is_read_again(folder):
    file = folder / "mine.txt"
    file.write_text(LIST, encoding="utf-8")
    os.utime(file, ns=(1, 1))
    version = NODE.IS_CHANGED(phrases="mine.txt", custom="", top_k=5)
    assert version == f"{len(LIST)} 1" == NODE.IS_CHANGED("mine.txt") == NODE.IS_CHANGED("mine.txt", None)
    os.utime(file, ns=(2, 2))
    assert NODE.IS_CHANGED("mine.txt") == f"{len(LIST)} 2"
    for given in ({}, {"phrases": None}, {"phrases": "world"}, {"phrases": "mine.txt", "custom": LIST}):
        assert NODE.IS_CHANGED(**given, clip=None, embedding=None) == ""
