"""Embeddings and bases in files: saved under new numbers, found again, and nowhere else."""

import os

import pytest
import torch

from unclip import NODE_CLASS_MAPPINGS
from unclip.cli.headless import run_workflow
from unclip.nodes import files, host
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import BasisValue, EmbeddingValue
from unclip.unclip_core.embedding.pca import fit_basis
from unclip.unclip_core.weights.files import CheckpointError

EMBEDS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
VALUE = EmbeddingValue(EMBEDS, "test", "prior", ("a red circle",), 2**63)
BASIS = BasisValue(fit_basis(EMBEDS), "test")
SAVERS = [("UnclipSaveEmbedding", VALUE, "unclip/embedding"), ("UnclipSavePca", BASIS, "unclip/pca")]


def run(node_id, *values, **widgets):
    node = NODE_CLASS_MAPPINGS[node_id]
    returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    return returned if isinstance(returned, dict) else {"result": returned}


@pytest.fixture
def folder(tmp_path):
    with host.working_in(tmp_path / "output", (tmp_path / "input",)):
        yield tmp_path


def test_an_embedding_comes_back_with_all_that_is_known_of_it(folder):
    saved = run("UnclipSaveEmbedding", VALUE)
    (name,) = saved["result"]
    assert name == "unclip/embedding_00001_.safetensors [output]"
    assert saved["ui"]["files"] == [
        {"filename": "embedding_00001_.safetensors", "subfolder": "unclip", "type": "output"}
    ]
    for widgets in ({"saved": name}, {"file": name}, {"file": "whatever", "saved": name}):
        found, info = run("UnclipLoadEmbedding", **widgets)["result"]
        assert torch.equal(found.embeds, EMBEDS)
        assert (found.family, found.source, found.prompts, found.seed) == ("test", "prior", ("a red circle",), 2**63)
        assert info == f"embeddings: 6\nfamily: test\nsource: prior\nprompt: a red circle\nseed: {2**63}"


def test_a_basis_comes_back(folder):
    (name,) = run("UnclipSavePca", BASIS)["result"]
    (found,) = run("UnclipLoadPca", saved=name)["result"]
    assert found.family == "test" and torch.equal(found.basis.components, BASIS.basis.components)


@pytest.mark.parametrize(("node_id", "value", "stem"), SAVERS)
def test_nothing_is_overwritten_and_what_is_saved_is_offered(folder, node_id, value, stem):
    names = [run(node_id, value)["result"][0] for _ in range(3)]
    assert names == [f"{stem}_{number:05}_.safetensors [output]" for number in (1, 2, 3)]
    run(node_id, value, filename_prefix="elsewhere/x")
    assert (folder / "output/elsewhere/x_00001_.safetensors").is_file()
    (folder / "input").mkdir()
    (folder / "input/mine.safetensors").write_bytes(b"")
    (folder / "input/._mine.safetensors").write_bytes(b"")
    assert files.listed() == [files.SAVED, "mine.safetensors", *names]


@pytest.mark.parametrize(("node_id", "value", "stem"), SAVERS)
@pytest.mark.parametrize("prefix", ["", "../x", "/tmp/x", "a/../../x"])
def test_prefixes_that_leave_the_folder_are_refused(folder, node_id, value, stem, prefix):
    with pytest.raises(InputError, match="'filename_prefix'"):
        run(node_id, value, filename_prefix=prefix)


def test_nothing_is_left_of_a_file_that_could_not_be_written(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unclip.nodes.storage.save_embeddings", full)
    with pytest.raises(OSError, match="No space"):
        run("UnclipSaveEmbedding", VALUE)
    assert list((folder / "output").rglob("*.safetensors")) == []


@pytest.mark.parametrize("node_id", ["UnclipLoadEmbedding", "UnclipLoadPca"])
@pytest.mark.parametrize(
    "name",
    ["x.safetensors", "unclip/x.safetensors [output]", "../secret.safetensors", "../secret.safetensors [output]", "",
     "unclip [output]"],
)  # fmt: skip
def test_files_elsewhere_are_not_found(folder, node_id, name):
    run("UnclipSaveEmbedding", VALUE)
    (folder / "secret.safetensors").write_bytes(b"secret")
    with pytest.raises(InputError, match="no file|must be a text"):
        run(node_id, file=name)
    assert NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS(name) is not True


@pytest.mark.parametrize("node_id", ["UnclipLoadEmbedding", "UnclipLoadPca"])
def test_without_choice_and_link_the_node_says_what_to_do(folder, node_id):
    with pytest.raises(InputError, match="choose a file, or link one"):
        run(node_id)
    assert NODE_CLASS_MAPPINGS[node_id].IS_CHANGED() == "" == NODE_CLASS_MAPPINGS[node_id].IS_CHANGED(saved=None)


@pytest.mark.parametrize("node_id", ["UnclipLoadEmbedding", "UnclipLoadPca"])
def test_a_name_given_under_saved_is_the_file_that_is_watched(folder, node_id):
    first, second = (folder / "input" / f"{name}.safetensors" for name in ("first", "second"))
    for size, path in enumerate((first, second)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b" " * size)
        os.utime(path, ns=(1, 1))
    changed = NODE_CLASS_MAPPINGS[node_id].IS_CHANGED
    assert changed(file=first.name, saved=second.name) == changed(saved=second.name) == "1 1"
    assert changed(file=first.name) == changed(file=first.name, saved=None) == "0 1"


def test_files_of_another_kind_and_damaged_ones_are_named(folder):
    (embedding,), (basis,) = (run(node_id, value)["result"] for node_id, value, _ in SAVERS)
    with pytest.raises(CheckpointError, match="holds no embeddings"):
        run("UnclipLoadEmbedding", saved=basis)
    with pytest.raises(CheckpointError, match="holds no PCA basis"):
        run("UnclipLoadPca", saved=embedding)
    path = folder / "output" / embedding.removesuffix(files.OUTPUT_MARK)
    before = files.version(embedding)
    path.write_bytes(path.read_bytes()[:-9])
    assert files.version(embedding) != before
    with pytest.raises(CheckpointError, match="embedding_00001_"):
        run("UnclipLoadEmbedding", saved=embedding)


def test_a_workflow_saves_and_loads_in_its_own_output_folder(tmp_path):
    class Source:
        RETURN_TYPES, FUNCTION = ("UNCLIP_EMBEDDING",), "run"

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        def run(self):
            return (VALUE,)

    names = ("UnclipSaveEmbedding", "UnclipLoadEmbedding")
    classes = {"Source": Source, **{name: NODE_CLASS_MAPPINGS[name] for name in names}}
    from unclip.cli.headless.stock import PreviewAny

    workflow = {
        "1": {"class_type": "Source", "inputs": {}},
        "2": {"class_type": names[0], "inputs": {"embedding": ["1", 0], "filename_prefix": "e"}},
        "3": {"class_type": names[1], "inputs": {"file": files.SAVED, "saved": ["2", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}, "_meta": {"title": "Info"}},
    }
    report = run_workflow(workflow, output_dir=tmp_path / "out", classes={**classes, "PreviewAny": PreviewAny})
    assert report.status == "ok", report.errors
    assert [saved.path for saved in report.outputs] == [tmp_path / "out" / "e_00001_.safetensors"]
    assert [(shown.title, shown.text.split("\n")[0]) for shown in report.texts][-1] == ("Info", "embeddings: 6")
    assert report.as_dict()["texts"][-1]["text"].endswith(f"seed: {2**63}")


@pytest.mark.parametrize("prefix", ["", "../x", "x" * 300, "a\0b", 5])
@pytest.mark.parametrize("node_id", ["UnclipSaveEmbedding", "UnclipSavePca"])
def test_a_prefix_that_no_file_can_have_is_refused_before_the_run(node_id, prefix):
    check = NODE_CLASS_MAPPINGS[node_id].VALIDATE_INPUTS
    assert "'filename_prefix'" in check(filename_prefix=prefix)
    assert check(filename_prefix="unclip/good") is True and check(filename_prefix=None) is True
