"""`unclip run --device`: what the nets run on, and what the report says of it."""

import json
from types import SimpleNamespace

import pytest
import torch

from unclip.__main__ import main
from unclip.cli.headless import run_workflow
from unclip.nodes import host
from unclip.unclip_core.weights import devices

SEEN: list[torch.device] = []


class Look:
    """Writes down the device that nodes are given."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    RETURN_TYPES = ()
    FUNCTION = "go"
    OUTPUT_NODE = True

    def go(self):
        SEEN.append(host.device())
        return ()


WORKFLOW = {"1": {"class_type": "Look", "inputs": {}}}


def run(tmp_path, **more):
    SEEN.clear()
    return run_workflow(WORKFLOW, output_dir=tmp_path, classes={"Look": Look}, **more)


def test_the_report_says_what_the_nets_ran_on(tmp_path):
    report = run(tmp_path, device="cpu")
    assert report.status == "ok" and SEEN == [torch.device("cpu")] and not report.notes
    assert {"device": "cpu", "dtype": "fp32"}.items() <= report.as_dict().items()


def test_an_accelerator_is_taken_by_itself_in_half_precision(monkeypatch, tmp_path):
    for kind in devices.KINDS:
        there = SimpleNamespace(is_available=lambda kind=kind: kind == "mps")
        monkeypatch.setattr(torch, kind, there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    report = run(tmp_path)
    assert SEEN == [torch.device("mps")] and (report.device, report.dtype) == ("mps", "fp16")
    assert report.notes == ["The nets run on mps, in fp16 where the loader says auto."]
    assert run(tmp_path, device="cpu").dtype == "fp32" and SEEN == [torch.device("cpu")]


def test_a_device_that_is_not_there_makes_the_run_invalid(tmp_path, capsys):
    report = run(tmp_path, device="meta")
    assert report.status == "invalid" and not SEEN
    assert "no device 'meta'" in report.errors[0].message
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    assert main(["run", str(tmp_path / "workflow.json"), "--device", "tpu-9"]) == 2
    assert "'tpu-9' is no device" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["embed", "--data", ".", "--output", "out"], ["evaluate", "--data", ".",
    "--model", "bundled (shapes)"], ["bench", "tiny"], ["bench", "speed"]])  # fmt: skip
def test_other_commands_say_so_too(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    from PIL import Image

    Image.new("RGB", (8, 8)).save("one.png")
    assert main([*command, "--device", "meta"]) == 1
    assert "no device 'meta'" in capsys.readouterr().err
