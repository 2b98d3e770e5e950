"""`unclip bench kandinsky22` and `bench speed --family kandinsky22`, at a small size."""

import json

import pytest
import torch

from unclip.unclip_core.bench.kandinsky import bench_kandinsky
from unclip.unclip_core.bench.random_kandinsky import random_kandinsky
from unclip.unclip_core.bench.speed import kandinsky, table, worker
from unclip.unclip_core.families.kandinsky22.random_decoder import full_size as full_decoder
from unclip.unclip_core.families.kandinsky22.random_decoder import small_size as small_decoder
from unclip.unclip_core.families.kandinsky22.random_prior import full_size as full_prior
from unclip.unclip_core.families.kandinsky22.random_prior import small_size as small_prior
from unclip.unclip_core.families.loading import load_model


@pytest.mark.slow
def test_it_runs_every_stage_in_the_asked_precision(tmp_path, capsys):
    figures = bench_kandinsky("small", "bf16", steps=2, side=128, folder=str(tmp_path), as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["picture"] == [1, 128, 128, 3]
    assert list(said["stages"]) == ["text encoder", "prior", "decoder and MoVQ"]
    assert 0 < figures["peak_gib"] < 64
    model = load_model(tmp_path / "kandinsky-2-2-decoder", torch.bfloat16)
    assert model.decoder.net.unet.stem.weight.dtype == torch.bfloat16
    parts = (model.clip, model.prior, model.decoder)
    assert figures["parameters"] == sum(p.numel() for part in parts for p in part.module.parameters())
    assert bench_kandinsky("small", "fp32", steps=1, side=64, folder=str(tmp_path))["picture"] == [1, 64, 64, 3]


@pytest.mark.slow
def test_both_programs_draw_the_same_images(tmp_path):
    pytest.importorskip("diffusers")
    folder = random_kandinsky(tmp_path, small_prior(), small_decoder())
    made = {}
    for program in ("ours", "diffusers"):
        job = {
            "family": "kandinsky22", "program": program, "folder": str(folder), "dtype": "fp32", "batch": 2,
            "steps": [3, 4], "side": 64, "images": 2, "device": "cpu", "save_to": str(tmp_path / program),
        }  # fmt: skip
        figures = worker.measure(job)
        assert len(figures["per_image"]) == 1 and figures["peak_device_memory"] is None
        made[program] = torch.load(tmp_path / program, weights_only=True)
    assert made["ours"].shape == made["diffusers"].shape == (2, 64, 64, 3) and made["diffusers"].std() > 0.05
    assert (made["ours"] - made["diffusers"]).abs().mean() < 4e-5


def test_the_small_size_has_kandinskys_shape():
    small, full = kandinsky.half_decoder(), full_decoder()
    assert [2 * width for width in small.decoder.unet.channels] == list(full.decoder.unet.channels)
    assert [2 * width for width in small.movq.channels] == list(full.movq.channels)
    assert small.decoder.unet.attention == full.decoder.unet.attention
    halves, wholes = kandinsky.half_prior(), full_prior()
    for part in ("text", "vision", "prior"):
        assert 2 * getattr(halves, part).width == getattr(wholes, part).width
        assert 2 * getattr(halves, part).embed_dim == getattr(wholes, part).embed_dim


def test_another_number_of_stages_is_refused():
    pytest.importorskip("diffusers")
    with pytest.raises(ValueError, match=r"Kandinsky 2\.2 has 2 stages to be given steps, got 3"):
        table.bench_speed(family="kandinsky22", steps=(1, 2, 3))
