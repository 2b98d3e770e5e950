"""Where a worker of `unclip map` runs its nets, and in which dtype."""

import json
from types import SimpleNamespace

import pytest
import torch

from unclip.cli.headless import run
from unclip.cli.headless.report import Report
from unclip.cli.mapping.rows import Row
from unclip.cli.mapping.tasks import Setup, make_task
from unclip.unclip_core.families import loading
from unclip.unclip_core.weights import devices


@pytest.mark.parametrize(("dtype", "read"), [("auto", torch.bfloat16), ("fp32", torch.float32)])
def test_nets_are_read_in_the_devices_own_dtype_unless_one_is_asked_for(dtype, read, monkeypatch):
    asked, moved = [], []
    part = SimpleNamespace(module=SimpleNamespace(to=moved.append))
    model = SimpleNamespace(has=lambda name: name == "prior", prior=part)
    monkeypatch.setattr(devices, "own_dtype", lambda device: torch.bfloat16 if device.type == "cuda" else None)
    monkeypatch.setattr(loading, "load_model", lambda path, dtype: asked.append(dtype) or model)
    make_task(Setup("text-to-image", device="cuda", dtype=dtype))
    assert asked == [read] and moved == [torch.device("cuda")]


def test_a_workflow_runs_on_the_workers_device(tmp_path, monkeypatch):
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps({"1": {"class_type": "Look", "inputs": {}}}))
    found = []
    monkeypatch.setattr(run, "run_workflow", lambda *_, device, **__: found.append(device) or Report())
    make_task(Setup(str(file), device="cuda"))([Row("a", 1, {})])
    assert found == ["cuda"]
