"""A sample's noise: its own seed's, whatever batch, stage and device it is drawn for."""

import pytest
import torch

from unclip.unclip_core.diffusion.noise import BatchNoise, FixedNoise, NoiseSource, sample_seeds


def test_seeds_of_a_batch_count_up_and_wrap():
    assert sample_seeds(7, 3) == [7, 8, 9]
    assert sample_seeds(2**64 - 1, 3) == [2**64 - 1, 0, 1]
    assert sample_seeds(-2, 4) == [2**64 - 2, 2**64 - 1, 0, 1]
    assert sample_seeds(2**70 + 5, 1) == [5]
    assert sample_seeds(0, 0) == []
    with pytest.raises(ValueError, match="-1"):
        sample_seeds(0, -1)


def test_a_sample_does_not_depend_on_its_batch():
    batch, alone = NoiseSource([3, 4, 5], "decoder"), NoiseSource([5], "decoder")
    for shape in [(3, 8, 8), (7,), (2, 3)]:
        assert torch.equal(batch.normal(shape)[2:], alone.normal(shape))


def test_successive_draws_seeds_and_streams_differ():
    source = NoiseSource([1, 2], "prior")
    first, second = source.normal((64,)), source.normal((64,))
    other = NoiseSource([1, 2], "decoder").normal((64,))
    rows = [first[0], first[1], second[0], second[1], other[0], other[1]]
    distances = [(a - b).abs().max() for i, a in enumerate(rows) for b in rows[:i]]
    assert min(distances) > 0.5


def test_each_sample_may_have_a_stream_of_its_own():
    mixed = NoiseSource([1, 1, 2], ["prior", "prior/1", "prior"]).normal((16,))
    assert torch.equal(mixed[::2], NoiseSource([1, 2], "prior").normal((16,)))
    assert torch.equal(mixed[1:2], NoiseSource([1], "prior/1").normal((16,)))
    assert (mixed[0] - mixed[1]).abs().max() > 0.5
    with pytest.raises(ValueError, match="2 samples cannot have 1 streams"):
        NoiseSource([1, 2], ["prior"])


@pytest.mark.parametrize("seed", [-1, 0, 2**32, 2**63, 2**64 - 1, 2**70, -(2**80)])
def test_any_int_is_a_seed_and_repeats(seed):
    assert torch.equal(NoiseSource([seed]).normal((16,)), NoiseSource([seed]).normal((16,)))
    assert torch.equal(NoiseSource([seed]).normal((16,)), NoiseSource([seed % 2**64]).normal((16,)))


def test_seeds_that_agree_in_their_low_bits_differ():
    draws = NoiseSource([9 + k * 2**32 for k in range(8)]).normal((8,))
    assert len({tuple(row.tolist()) for row in draws}) == 8


def test_moments_within_and_across_samples():
    draws = NoiseSource(sample_seeds(0, 400)).normal((400,)).double()
    for flat in (draws.flatten(), draws[:, 0], draws.mean(dim=1) * 20):
        n = flat.numel()
        assert abs(flat.mean().item()) < 4.5 / n**0.5
        assert abs(flat.var().item() - 1) < 4.5 * (2 / n) ** 0.5
    neighbours = (draws[1:] * draws[:-1]).mean().item()  # seeds in a row must not be related
    assert abs(neighbours) < 4.5 / (399 * 400) ** 0.5


def test_noise_is_the_same_in_every_precision():
    single, double = NoiseSource([1]).normal((9,)), NoiseSource([1]).normal((9,), dtype=torch.float64)
    half = NoiseSource([1]).normal((9,), dtype=torch.float16)
    assert (single.dtype, double.dtype, half.dtype) == (torch.float32, torch.float64, torch.float16)
    assert torch.equal(single.double(), double) and torch.equal(single.half(), half)
    assert NoiseSource([1]).normal((9,), device="meta").device.type == "meta"


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    NoiseSource([1]).normal((3,))
    assert torch.equal(torch.randn(3), expected)


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="at least one seed"):
        NoiseSource([])


def test_fixed_noise_hands_out_its_draws_in_order_then_refuses():
    draws = [torch.ones(2, 3), torch.zeros(2, 3)]
    fixed = FixedNoise(draws)
    assert torch.equal(fixed.normal((3,)), draws[0])
    assert fixed.normal((3,), dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="all 2 fixed draws"):
        fixed.normal((3,))


def test_fixed_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\).*\(4,\)"):
        FixedNoise([torch.ones(2, 3)]).normal((4,))


def test_noise_goes_to_a_gpu_without_waiting_for_it(monkeypatch):
    """A copy from memory that is not pinned waits for all that the device was given before."""
    moved = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda draw: moved.append("pinned") or draw)
    real = torch.Tensor.to

    def to(draw, *given, **how):
        return moved.append((given, how)) or draw if given == ("cuda",) else real(draw, *given, **how)

    monkeypatch.setattr(torch.Tensor, "to", to)
    sources = NoiseSource([1]), BatchNoise(torch.Generator(), 1), FixedNoise([torch.ones(1, 9)])
    for source in sources:
        moved.clear()
        source.normal((9,), device="cuda")
        assert moved == ["pinned", (("cuda",), {"non_blocking": True})]


@pytest.mark.gpu
def test_on_a_gpu_noise_is_the_cpus():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU: what torch copies there is not tested here")
    here, there = NoiseSource([1, 2]), NoiseSource([1, 2])
    for _ in range(20):  # memory that waits to be copied is not written over
        assert torch.equal(there.normal((3, 64, 64), device="cuda").cpu(), here.normal((3, 64, 64)))
    drawn = [there.normal((3, 64, 64), device="cuda") for _ in range(20)]
    assert all(torch.equal(draw.cpu(), here.normal((3, 64, 64))) for draw in drawn)
