"""`unclip bench karlo` at a small size: it writes a model, runs it part by part and says what it took."""

import json

import pytest
import torch

from unclip.unclip_core.bench.karlo import bench_karlo
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.weights.files import CheckpointError


def test_it_runs_every_stage_in_the_asked_precision(tmp_path, capsys, emulated):
    figures = bench_karlo("small", "bf16", steps=2, folder=str(tmp_path / "karlo"), as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["picture"] == [1, 64, 64, 3] and list(said["stages"]) == [
        "clip",
        "prior",
        "decoder",
        "super-resolution",
    ]
    assert 0 < figures["peak_gib"] < 64
    assert figures["dtype"] == "bf16" and figures["precision"].startswith("bf16, computed in fp32: ")
    model = load_model(tmp_path / "karlo", torch.bfloat16)
    assert model.decoder.net.unet.stem.weight.dtype == torch.bfloat16
    parts = (model.clip, model.prior, model.decoder, model.upsampler)
    assert figures["parameters"] == sum(p.numel() for part in parts for p in part.module.parameters())
    again = bench_karlo("small", "fp32", steps=1, folder=str(tmp_path / "karlo"))
    assert again["write_seconds"] < figures["write_seconds"]


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match="not empty"):
        bench_karlo("small", folder=str(tmp_path))
    assert (tmp_path / "file").read_text() == "mine"
