"""The engine and its optimizer: it learns, resumes without a jump, and steps as AdamW and Muon do."""

import copy
import math
import signal
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unclip.unclip_core.diffusion.forward import add_noise
from unclip.unclip_core.train import engine as engine_module
from unclip.unclip_core.train.config import Training
from unclip.unclip_core.train.engine import Engine, Hooks
from unclip.unclip_core.train.noise_levels import logit_normal_times
from unclip.unclip_core.train.optimizer import MuonAdamW, WeightAverage, cosine_lr, hidden_matrices
from unclip.unclip_core.train.processes import OneProcess
from unclip.unclip_core.train.state import RunFiles, read_log, read_state

CONFIG = Training(steps=20, lr=0.02, warmup=3, save_minutes=1e9, log_every=5, ema=0.9, beta2=0.99, optimizer="muon")


class Sums(nn.Module):
    """Learns to add four numbers."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 1).to(dtype)

    def forward(self, batch):
        x = batch["x"]
        return {"loss": F.mse_loss(self.net(x.to(self.net.weight.dtype)).float(), x.sum(dim=1, keepdim=True))}


class Numbers:
    """Sixteen rows a step; from step number `fatal` on, `answer`."""

    def __init__(self, fatal=10**9, answer=None):
        self.fatal, self.answer = fatal, answer

    def steps(self, first, last):
        for step in range(first, last):
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            yield [{"x": self.answer(x) if step >= self.fatal else x}]


def engine_of(objective, training, folder, source=None, name="net"):
    return Engine(objective, source or Numbers(), training, RunFiles(folder, name), OneProcess(), Hooks(lambda _: None))


def test_resuming_gives_the_same_weights_as_not_stopping(tmp_path):
    whole = engine_of(Sums(), CONFIG, tmp_path, name="whole")
    assert whole.run()

    class KilledError(Exception):
        pass

    def killed(x):
        raise KilledError

    first = engine_of(Sums(), replace(CONFIG, save_minutes=0.0), tmp_path, Numbers(12, killed), "halves")
    with pytest.raises(KilledError):
        first.run()
    second = engine_of(Sums(), CONFIG, tmp_path, name="halves")
    assert second.step == 12
    second.run()
    for name, value in whole.averaged_state().items():
        torch.testing.assert_close(second.averaged_state()[name], value, rtol=0, atol=0)


def test_it_learns_in_bfloat16_below_that_types_resolution(tmp_path):
    training = replace(CONFIG, steps=400, warmup=5, weight_decay=0.0, ema=0.95)
    engine = engine_of(Sums(torch.bfloat16), training, tmp_path)
    engine.run()
    torch.testing.assert_close(engine.averaged_state()["net.weight"], torch.ones(1, 4), rtol=0, atol=0.01)


def test_training_ends_at_its_stop_along_the_schedule_of_all_steps(tmp_path):
    engine = engine_of(Sums(), replace(CONFIG, stop=10), tmp_path)
    assert engine.run() and engine.step == 10
    lines = read_log(RunFiles(tmp_path, "net"))
    assert [line["step"] for line in lines] == [5, 10]
    assert lines[-1]["lr"] == pytest.approx(cosine_lr(9, 20, 0.02, 3))


def test_training_leaves_the_global_generator(tmp_path):
    engine = engine_of(Sums(), CONFIG, tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    engine.run()
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_of_the_first_format_goes_on(tmp_path):
    """Until this engine it held AdamW's moments, and names without the objective's prefix."""
    training = replace(CONFIG, optimizer="adamw")
    whole = engine_of(Sums(), training, tmp_path, name="whole")
    whole.run()
    half = engine_of(Sums(), replace(training, stop=10), tmp_path, name="old")
    half.run()
    state = torch.load(tmp_path / "old.state.pt", weights_only=True)
    old = {name: state[name] for name in ("step", "scaler", "sums", "bad")}
    old["net"] = {name.removeprefix("net."): tensor for name, tensor in state["parameters"].items()}
    old["average"] = {name.removeprefix("net."): tensor for name, tensor in state["average"].items()}
    torch.save(old | {"optimizer": state["optimizer"]["adamw"]}, tmp_path / "old.state.pt")
    second = engine_of(Sums(), training, tmp_path, name="old")
    assert second.step == 10
    second.run()
    for name, value in whole.averaged_state().items():
        torch.testing.assert_close(second.averaged_state()[name], value, rtol=0, atol=0)


def stepped(optimizer, lr, max_norm=None):
    """One step of given gradients, as the engine makes it."""
    optimizer.set_lr(lr)
    optimizer.gather_gradients()
    if max_norm is not None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], max_norm)
    optimizer.step()
    optimizer.zero_grad()


def test_the_step_is_adamws():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizer = MuonAdamW(ours, lr=0.1, weight_decay=0.3, betas=(0.9, 0.99))
    groups = [{"params": [theirs.weight], "weight_decay": 0.3}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.99))
    for _ in range(3):
        x = torch.randn(5, 3)
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().mean().backward()
        stepped(optimizer, 0.05)
        reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_channels_last_are_trained_as_plain_ones_are(dtype):
    """By both optimizers: those of a GPU and of the shapes' recipe lie so, and their gradients too."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 40, 3), nn.Conv2d(40, 40, 3)).to(dtype)
    last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 9, 8).to(dtype)
    for net in (plain, last):
        optimizer = MuonAdamW(net, lr=0.1, weight_decay=0.1)
        for _ in range(2):
            net(x).float().square().mean().backward()
            stepped(optimizer, 0.01)
        assert optimizer.masters["0.weight"].is_contiguous()
    for ours, theirs in zip(last.parameters(), plain.parameters(), strict=True):
        assert ours.ndim < 4 or ours.is_contiguous(memory_format=torch.channels_last)
        assert (ours - theirs).abs().mean() < 0.0005  # steps are of 0.01; Muon's iterations round to bfloat16


def test_muons_step_is_the_nearest_orthogonal_matrix_at_adamws_scale():
    torch.manual_seed(0)
    net = nn.Conv2d(8, 40, 3, bias=False)
    before = net.weight.detach().clone()
    optimizer = MuonAdamW(net, lr=0.1, weight_decay=0.0)
    gradient = torch.randn_like(before)
    (net.weight * gradient).sum().backward()
    stepped(optimizer, 0.01)
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    moved = (before - net.weight.detach()).flatten(1) / (0.01 * 0.2 * 72**0.5)
    # The iteration brings singular values near 1, not to it.
    assert torch.linalg.svdvals(moved).sub(1).abs().max() < 0.4
    assert torch.nn.functional.cosine_similarity(moved.flatten(), (u @ v).flatten(), dim=0) > 0.97


def test_muon_goes_on_from_its_state():
    def trained(steps, state=None):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 1))
        if state is not None:
            net.load_state_dict(state[0])
        optimizer = MuonAdamW(net, lr=0.1, weight_decay=0.1)
        if state is not None:
            optimizer.load_state_dict(state[1])
        for step in steps:
            net(torch.full((2, 40), step + 1.0)).square().mean().backward()
            stepped(optimizer, 0.01, max_norm=1.0)
        return net, (net.state_dict(), optimizer.state_dict())

    whole, _ = trained(range(4))
    parts, _ = trained(range(2, 4), trained(range(2))[1])
    torch.testing.assert_close(parts[0].weight, whole[0].weight, rtol=0, atol=0)


def test_muon_takes_hidden_matrices_and_leaves_embeddings_and_small_sides():
    net = nn.ModuleDict(
        {"table": nn.Embedding(99, 64), "in": nn.Linear(3, 64), "hidden": nn.Linear(64, 48), "wide": nn.Linear(80, 90)}
    )
    assert hidden_matrices(net, 64) == ["hidden.weight"]
    assert hidden_matrices(net, 80) == ["hidden.weight", "wide.weight"]


def test_the_average_is_exponential():
    generator = torch.Generator().manual_seed(0)
    walk = [torch.randn(3, generator=generator) for _ in range(5)]
    average, expected = WeightAverage({"w": walk[0]}, decay=0.5), walk[0].clone()
    for step, weights in enumerate(walk[1:]):
        average.update({"w": weights}, step + 1)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(average.tensors["w"], expected)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    engine = engine_of(Sums(), CONFIG, tmp_path)
    engine.save()
    before = (tmp_path / "net.state.pt").read_bytes()

    def full(files, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_module, "write_state", full)
    with pytest.raises(OSError, match="No space left"):
        engine.run()
    assert (tmp_path / "net.state.pt").read_bytes() == before


def test_torchs_word_for_a_full_disk_is_an_os_error(tmp_path):
    resource = pytest.importorskip("resource")
    engine = engine_of(Sums(), CONFIG, tmp_path)
    engine.save()
    before = (tmp_path / "net.state.pt").read_bytes()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(OSError, match="File too large"):
            engine.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "net.state.pt").read_bytes() == before


def test_what_is_measured_at_the_end_comes_after_the_last_save(tmp_path):
    def interrupted(step):
        raise KeyboardInterrupt

    hooks = Hooks(lambda _: None, measure=interrupted)
    engine = Engine(Sums(), Numbers(), CONFIG, RunFiles(tmp_path, "net"), OneProcess(), hooks)
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    assert read_state(RunFiles(tmp_path, "net"))["step"] == CONFIG.steps


def test_no_bound_of_the_gradients_and_a_seed_of_any_size(tmp_path):
    whole = replace(CONFIG, clip_norm=0.0, seed=156_680_208_700_286)
    unbound, bound = (
        engine_of(Sums(), one, tmp_path, name=str(one.clip_norm)) for one in (whole, replace(whole, clip_norm=1e9))
    )
    assert unbound.run() and bound.run()
    assert torch.equal(unbound.trained_state()["net.weight"], bound.trained_state()["net.weight"])
    assert not torch.equal(unbound.trained_state()["net.weight"], Sums().net.weight)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="step 5"):
        engine_of(Sums(), CONFIG, tmp_path, Numbers(4, lambda x: x * math.nan)).run()


def test_the_learning_rate_warms_up_and_falls():
    assert cosine_lr(0, 100, 1.0, 10) == pytest.approx(0.1)
    assert cosine_lr(9, 100, 1.0, 10) == pytest.approx(1.0)
    assert cosine_lr(55, 100, 1.0, 10) == pytest.approx(0.505)
    assert cosine_lr(100, 100, 1.0, 10) == pytest.approx(0.01)


def test_diffused_samples_have_the_schedules_moments():
    table = torch.tensor([0.9, 0.25], dtype=torch.float64)
    x0 = torch.full((2, 200_000), 2.0)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    noisy = add_noise(x0, noise, table).float()
    torch.testing.assert_close(noisy.mean(dim=1), torch.tensor([2 * 0.9**0.5, 1.0]), rtol=0, atol=0.01)
    torch.testing.assert_close(noisy.var(dim=1), torch.tensor([0.1, 0.75]), rtol=0, atol=0.01)


def test_logit_normal_times_have_their_median():
    times = logit_normal_times((100_000,), 1000, 0.5, 1.2, torch.Generator().manual_seed(0))
    assert float(times.float().median()) == pytest.approx(1000 / (1 + math.exp(-0.5)), abs=8)
    assert 0 <= int(times.min()) <= int(times.max()) <= 999
