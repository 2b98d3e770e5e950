"""`unclip convert` and `unclip download` as a user types them: what is written draws, what goes wrong is a sentence."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unclip.__main__ import main
from unclip.unclip_core.families import download
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo

WORKFLOW = Path(__file__).parents[2] / "workflows" / "api" / "karlo_text_to_image.json"


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    """A folder of .bin files, as the public one may be."""
    folder = write_random_karlo(tmp_path_factory.mktemp("source") / "karlo", small_size(), vision=False)
    for path in folder.glob("*/*.safetensors"):
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
    return folder


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_bin_folder_becomes_one_that_a_workflow_draws_with(karlo, tmp_path, monkeypatch, capsys, dtype, kind):
    assert main(["convert", str(karlo), str(tmp_path / "models" / "mine"), "--dtype", dtype]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "models" / "mine") in said and " GB" in said
    names = {path.suffix for path in (tmp_path / "models").rglob("*") if path.is_file()}
    assert ".safetensors" in names and ".bin" not in names
    decoder = load_file(next((tmp_path / "models" / "mine" / "decoder").glob("*.safetensors")))
    assert {tensor.dtype for tensor in decoder.values()} == {kind}

    monkeypatch.setenv("UNCLIP_MODELS", str(tmp_path / "models"))
    settings = ["1.model=mine", "3.steps=2", "4.steps=2", "5.steps=2"]
    flags = [part for setting in settings for part in ("--set", setting)]
    assert main(["run", str(WORKFLOW), *flags, "--output", str(tmp_path / "drawn")]) == 0
    (image,) = (tmp_path / "drawn").glob("*.png")
    with Image.open(image) as drawn:
        assert drawn.size == (64, 64) and json.loads(drawn.text["prompt"])["1"]["inputs"]["model"] == "mine"


def complaint(capsys, *arguments):
    """What is printed instead of a traceback."""
    assert main([*map(str, arguments)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("unclip: ") and said.count("\n") == 1
    return said


def test_what_cannot_be_converted_is_said_in_a_sentence(karlo, tmp_path, capsys):
    target = tmp_path / "new"
    assert "nowhere" in complaint(capsys, "convert", tmp_path / "nowhere", target)
    (tmp_path / "empty").mkdir()
    assert "empty" in complaint(capsys, "convert", tmp_path / "empty", target)
    assert "not empty: name a new folder" in complaint(capsys, "convert", karlo, karlo)
    assert not target.exists()


def test_an_interrupt_is_no_traceback(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "download", interrupted)
    assert main(["download", "karlo", "--to", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "unclip: interrupted.\n"


def test_a_revision_is_passed_on_and_the_default_is_none(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download, "download", lambda *arguments: asked.append(arguments))
    assert main(["download", "karlo", "--to", str(tmp_path), "--revision", "fp16"]) == 0
    assert main(["download", "karlo", "--to", str(tmp_path)]) == 0
    assert asked == [("karlo", str(tmp_path), "fp16"), ("karlo", str(tmp_path), None)]
