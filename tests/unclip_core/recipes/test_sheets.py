"""Sheets show the averaged weights and leave the trained ones alone; measures compare with the right things."""

import pytest
import torch
from PIL import Image

from unclip.unclip_core.evaluate.stages import measure_upsampler
from unclip.unclip_core.families.native.presets import TINY_DIFFUSION, tiny_upsampler
from unclip.unclip_core.models import Upsampler
from unclip.unclip_core.nets.layers import TimeEmbedding
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.nets.upsampler import UpsamplerNet
from unclip.unclip_core.pipelines import to_images
from unclip.unclip_core.recipes.shapes.crops import UpsamplerSource
from unclip.unclip_core.recipes.shapes.phases import UpsamplerPhase
from unclip.unclip_core.recipes.shapes.recipe import run_phase
from unclip.unclip_core.train.config import Training
from unclip.unclip_core.train.objectives import UpsamplerObjective
from unclip.unclip_core.train.sample_sheets import upsampler_sheet


def small_net() -> UpsamplerNet:
    torch.manual_seed(0)
    return UpsamplerNet(
        UNetParams(
            in_channels=6,
            out_channels=3,
            channels=(8, 16),
            blocks=(1, 1),
            attention=(False, False),
            map_channels=(0, 0),
            time_channels=8,
            time_embed_dim=16,
            mid_blocks=1,
            groups=4,
            patch_size=4,
            layout="light",
        )
    )


def test_a_sheet_is_written_and_the_trained_weights_stay(tmp_path, native):
    net, spec, sheet = small_net(), TINY_DIFFUSION["upsampler"], tmp_path / "sheet.png"
    phase = UpsamplerPhase(Training(steps=3, batch=4, warmup=1, lr=1e-3), size=64, crop=32)
    source = UpsamplerSource(phase, spec, seed=0)
    seen = []

    def draw():
        seen.append(net.unet.stem.weight.detach().float().clone())
        return upsampler_sheet(Upsampler("test", net, spec, 4), to_images(source.images(-1)[:4]))

    objective = UpsamplerObjective(net, spec)
    engine = run_phase("upsampler", objective, source, phase, tmp_path, 0, torch.device("cpu"), draw, sheet)
    assert Image.open(sheet).size == (4 * 64, 3 * 64)
    assert torch.equal(seen[-1], engine.average.tensors["net.unet.stem.weight"].bfloat16().float())
    for name, master in engine.optimizer.masters.items():
        torch.testing.assert_close(objective.get_parameter(name).detach(), master.bfloat16(), rtol=0, atol=0)


def test_a_processor_that_would_emulate_bfloat16_trains_in_float32(tmp_path, capsys, emulated):
    phase = UpsamplerPhase(Training(steps=2, batch=4, warmup=1, lr=1e-3), size=64, crop=32)
    objective = UpsamplerObjective(small_net(), TINY_DIFFUSION["upsampler"])
    source = UpsamplerSource(phase, TINY_DIFFUSION["upsampler"], seed=0)
    run_phase("upsampler", objective, source, phase, tmp_path, 0, torch.device("cpu"))
    assert {parameter.dtype for parameter in objective.parameters()} == {torch.float32}
    assert "bf16, computed in fp32: this processor has no bf16 instructions" in capsys.readouterr().out


class Bicubic(torch.nn.Module):
    """Predicts its enlarged input: then both figures must agree."""

    def __init__(self) -> None:
        super().__init__()
        self.params = tiny_upsampler()
        self.unet = torch.nn.Module()
        self.unet.stride, self.unet.time_embed = 1, TimeEmbedding(2, 2)
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, t, low_res, times=None):
        return low_res


def test_an_upsampler_that_only_enlarges_gains_nothing():
    found = measure_upsampler(Upsampler("test", Bicubic(), TINY_DIFFUSION["upsampler"], 4), 3, seed=0, size=64)
    assert abs(found["upsampler"] - found["bicubic"]) < 1e-3
    assert 15 < found["bicubic"] < 45
    assert found["upsampler_edge"] == pytest.approx(found["bicubic_edge"], abs=1e-3)
    assert found["true_edge"] < 1.2 < 2.5 < found["bicubic_edge"]
