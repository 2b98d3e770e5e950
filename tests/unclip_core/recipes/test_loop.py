"""The training loop: it learns, resumes without a jump, and its optimizer is AdamW."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unclip.unclip_core.recipes.shapes import loop as loop_module
from unclip.unclip_core.recipes.shapes.batches import diffuse, logit_normal_times
from unclip.unclip_core.recipes.shapes.loop import Loop, LoopConfig
from unclip.unclip_core.train.optimizer import MasterOptimizer, cosine_lr

CONFIG = LoopConfig(steps=20, lr=0.02, warmup=3, save_seconds=1e9, log_every=5, ema=0.9)


def problem(dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    net = nn.Linear(4, 1).to(dtype)

    def loss(step: int) -> dict[str, torch.Tensor]:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return {"loss": F.mse_loss(net(x.to(dtype)).float(), x.sum(dim=1, keepdim=True))}

    return net, loss


def test_resuming_gives_the_same_weights_as_not_stopping(tmp_path):
    net, loss = problem()
    whole = Loop("whole", net, CONFIG, tmp_path)
    whole.run(loss)

    class KilledError(Exception):
        pass

    net, loss = problem()

    def killed(step: int) -> dict[str, torch.Tensor]:
        if step == 12:
            raise KilledError
        return loss(step)

    first = Loop("halves", net, LoopConfig(**{**vars(CONFIG), "save_seconds": 0.0}), tmp_path)
    with pytest.raises(KilledError):
        first.run(killed)
    net, loss = problem()
    second = Loop("halves", net, CONFIG, tmp_path)
    assert second.step == 12
    second.run(loss)
    for name, value in whole.averaged().items():
        torch.testing.assert_close(second.averaged()[name], value, rtol=0, atol=0)


def test_it_learns_in_bfloat16_below_that_types_resolution(tmp_path):
    net, loss = problem(torch.bfloat16)
    loop = Loop("net", net, LoopConfig(steps=400, lr=0.02, warmup=5, weight_decay=0.0, ema=0.95), tmp_path)
    loop.run(loss)
    torch.testing.assert_close(loop.averaged()["weight"], torch.ones(1, 4), rtol=0, atol=0.01)


def test_the_step_is_adamws():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = MasterOptimizer(ours, lr=0.1, weight_decay=0.3, ema=0.9)
    groups = [{"params": [theirs.weight], "weight_decay": 0.3}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.99))
    for step in range(3):
        x = torch.randn(5, 3)
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().mean().backward()
        optimizer.step(0.05, step, max_norm=math.inf)
        reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_muons_step_is_the_nearest_orthogonal_matrix_at_adamws_scale():
    torch.manual_seed(0)
    net = nn.Conv2d(8, 40, 3, bias=False)
    before = net.weight.detach().clone()
    optimizer = MasterOptimizer(net, lr=0.1, weight_decay=0.0, ema=0.9, muon=True)
    gradient = torch.randn_like(before)
    (net.weight * gradient).sum().backward()
    optimizer.step(0.01, 0, max_norm=math.inf)
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    moved = (before - net.weight.detach()).flatten(1) / (0.01 * 0.2 * 72**0.5)
    # The iteration brings singular values near 1, not to it.
    assert torch.linalg.svdvals(moved).sub(1).abs().max() < 0.4
    assert torch.nn.functional.cosine_similarity(moved.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_muon_goes_on_from_its_state():
    def trained(steps, state=None):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 1))
        optimizer = MasterOptimizer(net, lr=0.1, weight_decay=0.1, ema=0.9, muon=True)
        if state is not None:
            optimizer.load_state_dict(state)
        for step in steps:
            net(torch.full((2, 40), step + 1.0)).square().mean().backward()
            optimizer.step(0.01, step)
        return net, optimizer.state_dict()

    whole, _ = trained(range(4))
    parts, _ = trained(range(2, 4), trained(range(2))[1])
    torch.testing.assert_close(parts[0].weight, whole[0].weight, rtol=0, atol=0)


def test_the_average_is_exponential():
    net = nn.Linear(1, 1, bias=False)
    optimizer = MasterOptimizer(net, lr=0.1, weight_decay=0.0, ema=0.5)
    expected = net.weight.detach().clone()
    for step in range(4):
        net(torch.ones(1, 1)).sum().backward()
        optimizer.step(0.1, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * net.weight.detach()
    torch.testing.assert_close(optimizer.averages()["weight"], expected)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    net, loss = problem()
    loop = Loop("net", net, CONFIG, tmp_path)
    loop.save()
    before = (tmp_path / "net.state.pt").read_bytes()

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop_module, "write_whole", full)
    with pytest.raises(OSError, match="No space left"):
        loop.run(loss)
    assert (tmp_path / "net.state.pt").read_bytes() == before


def test_a_loss_that_is_not_finite_stops(tmp_path):
    net, loss = problem()
    with pytest.raises(FloatingPointError, match="step 5"):
        Loop("net", net, CONFIG, tmp_path).run(lambda step: {"loss": loss(step)["loss"] * math.nan})


def test_the_learning_rate_warms_up_and_falls():
    assert cosine_lr(0, 100, 1.0, 10) == pytest.approx(0.1)
    assert cosine_lr(9, 100, 1.0, 10) == pytest.approx(1.0)
    assert cosine_lr(55, 100, 1.0, 10) == pytest.approx(0.505)
    assert cosine_lr(100, 100, 1.0, 10) == pytest.approx(0.01)


def test_diffused_samples_have_the_schedules_moments():
    table = torch.tensor([0.9, 0.25], dtype=torch.float64)
    x0 = torch.full((2, 200_000), 2.0)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    noisy = diffuse(x0, torch.tensor([0, 1]), table, noise)
    torch.testing.assert_close(noisy.mean(dim=1), torch.tensor([2 * 0.9**0.5, 1.0]), rtol=0, atol=0.01)
    torch.testing.assert_close(noisy.var(dim=1), torch.tensor([0.1, 0.75]), rtol=0, atol=0.01)


def test_logit_normal_times_have_their_median():
    times = logit_normal_times(100_000, 1000, 0.5, 1.2, torch.Generator().manual_seed(0))
    assert float(times.float().median()) == pytest.approx(1000 / (1 + math.exp(-0.5)), abs=8)
    assert 0 <= int(times.min()) <= int(times.max()) <= 999
