"""Printing costs no command its result: narrow terminals, closed pipes, names that are no UTF-8."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import write_model
from own_training import config_of, write_images
from PIL import Image

import unclip
from unclip.__main__ import main
from unclip.unclip_core.output import legible

ODD = os.fsdecode(b"\xff\xe9")
"""A name that is no UTF-8."""


class Gone(io.StringIO):
    """A pipe whose reader has gone away."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


def streams(kind):
    if kind == "gone":
        return Gone(), Gone()
    return tuple(io.TextIOWrapper(io.BytesIO(), encoding=kind, errors="strict", write_through=True) for _ in range(2))


@pytest.fixture(params=["ascii", "cp1252", "gone"])
def narrow(request, monkeypatch):
    """stdout and stderr that take little or nothing; argparse, progress bars and libraries write to them too."""
    out, err = streams(request.param)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    return out


def odd_images(folder, count):
    """Images of which one has a name that is no UTF-8, and a damaged one too."""
    try:
        write_images(folder, count)
        picture = next(folder.glob("*.png"))
        picture.rename(folder / f"{ODD}.png")
        picture.with_suffix(".txt").rename(folder / f"{ODD}.txt")
        (folder / f"{ODD}bad.png").write_bytes(b"no image")
        (folder / f"{ODD}bad.txt").write_text("damaged")
        (folder / f"{ODD}silent.png").write_bytes((folder / f"{ODD}.png").read_bytes())
        (folder / f"{ODD}alone.txt").write_text("a caption alone")
    except OSError:  # a file system of UTF-8 only
        pytest.skip("file names have to be UTF-8 here")
    return folder


def test_a_run_keeps_its_images_and_its_exit_code(tmp_path, narrow):
    Image.new("RGB", (4, 4)).save(tmp_path / f"in{ODD}.png")
    flow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "θ \ud800"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "θ"}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    out = tmp_path / "out"
    line = ["run", str(tmp_path / "flow.json"), "--set", f"1.image=in{ODD}.png", "--output", str(out)]
    assert main(line) == 0 and main([*line, "--json"]) == 0
    assert [path.name for path in sorted(out.iterdir())] == ["θ_00001_.png", "θ_00002_.png"]
    assert main([*line, "--set", "2.nothing=θ"]) == 2


def test_an_evaluation_keeps_its_files_and_its_exit_code(tmp_path, narrow):
    model, data = write_model(tmp_path / "model"), odd_images(tmp_path / "data", 5)
    line = ["evaluate", "--model", str(model), "--data", str(data), "--output", str(tmp_path / "out"), "--small"]
    assert main(line) == 0
    figures = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["pictures"] == 5 and list(figures["left_out"]) == [
        legible(f"{ODD}{name}.png") for name in ("bad", "silent")
    ]
    assert "\\udcff" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")


def test_embedding_and_training_keep_their_results(tmp_path, narrow):
    pytest.importorskip("accelerate")
    model, data = write_model(tmp_path / "model"), odd_images(tmp_path / ODD, 4)
    assert main(["embed", "--data", str(data), "--model", str(model), "--output", str(tmp_path / "embeds")]) == 0
    assert list((tmp_path / "embeds").rglob("*.safetensors"))
    config = tmp_path / "clip.json"
    out = tmp_path / "trained"
    for steps in (2, 4):  # the second goes on
        config.write_text(json.dumps(config_of("clip", steps, batch=2)))
        assert main(["train", "clip", "--data", str(data), "--config", str(config), "--output", str(out)]) == 0
    assert (out / "clip.safetensors").is_file()


def test_json_stays_json_on_a_narrow_terminal(tmp_path, monkeypatch):
    out, err = streams("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    model, data = write_model(tmp_path / "model"), write_images(tmp_path / "Bilder 😀 é", 5)
    assert main(["evaluate", "--model", str(model), "--data", str(data), "--small", "--json"]) == 0
    assert json.loads(out.buffer.getvalue())["data"] == "Bilder 😀 é"


@pytest.mark.slow
def test_a_process_whose_reader_has_gone_ends_well(tmp_path):
    """What Python would do at its end, where it flushes what could not be written, shows in a process alone."""
    Image.new("RGB", (4, 4)).save(tmp_path / "in.png")
    flow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}, "_meta": {"title": "θ"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "a"}},
    }
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    line = [sys.executable, "-m", "unclip", "run", str(tmp_path / "flow.json"), "--output", str(tmp_path / "out")]
    here = str(Path(unclip.__file__).resolve().parent.parent)
    environment = os.environ | {"PYTHONPATH": here, "PYTHONIOENCODING": "cp1252"}
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(line, stdout=pipe, stderr=subprocess.PIPE, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"Exception" not in done.stderr and b"\\u03b8" in done.stderr
    assert (tmp_path / "out" / "a_00001_.png").is_file()


def test_too_little_memory_is_a_sentence_and_other_failures_are_not(capsys):
    import torch

    from unclip.cli.exits import run_and_report

    def raising(error):
        raise error

    assert run_and_report(lambda: raising(torch.OutOfMemoryError("CUDA out of memory.\nmore"))) == 1
    assert capsys.readouterr().err == (
        "unclip: the device has too little memory (CUDA out of memory.): compute less at once.\n"
    )
    with pytest.raises(RuntimeError, match="another"):
        run_and_report(lambda: raising(RuntimeError("another")))
