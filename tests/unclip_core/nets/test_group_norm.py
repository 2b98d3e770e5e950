"""The norms that a GPU takes, and their gradients, by triton's interpreter, against float64; when they are taken."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from factories import draw, error, randomise

from unclip.unclip_core.nets import group_norm, memory_formats

BOUNDS = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 1.5e-2}
FAR = 4e-5  # of numbers around 300, float32 itself keeps only so much


@pytest.fixture(scope="module")
def interpreted():
    """What `interpreted_norms` found."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed: the norms' kernels are not tested here")
    here = Path(__file__).parent
    program = here / "interpreted_norms.py"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(here)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["norms", "gradients"])
def test_kernels_equal_the_norm_and_its_gradients_in_float64(interpreted, kind):
    found = interpreted[kind]
    assert len(found) > 10
    bad = {
        name: off
        for name, off in found.items()
        if not off < (FAR if name.startswith("far") else BOUNDS[name.split(", ")[1]])
    }
    assert not bad


@pytest.mark.slow
def test_a_training_step_by_the_kernels_equals_the_plain_one_and_turns_nothing(interpreted):
    step = interpreted["step"]
    assert step["off"] < 2e-5 and step["of"] > 20
    assert step["turned"] == 0
    assert step["turned back"] <= 1  # the first gradient, which is the caller's
    torchs, ours = step["off in mixed precision"]
    assert ours < 1.5 * torchs


@pytest.mark.slow
def test_blocks_by_the_kernels_equal_the_plain_ones(interpreted):
    assert len(interpreted["blocks"]) == 4 and all(off < 2e-6 for off in interpreted["blocks"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
def test_kernels_compile_for_a_gpu(kind):
    """Without one: triton brings what makes machine code of them."""
    triton = pytest.importorskip("triton", reason="triton is not installed: the kernels are not compiled here")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from unclip.unclip_core.nets import triton_group_norm as kernels
    from unclip.unclip_core.nets import triton_group_norm_gradients as backwards

    x, lines = f"*{kind}", "*fp32"
    sizes = {"pixels": "i32", "channels": "i32", "chunk": "i32", "chunks": "i32"}
    tile = {"PIXELS": kernels.PIXELS, "CHANNELS": kernels.CHANNELS}
    given = {"weight": x, "bias": x, "scale_shift": x, "width": "i32", "eps": "fp32"}
    group = {"SHIFTED": True, "ROWS": kernels.FOLDED // kernels.MIN_GROUP, "GROUP": kernels.MIN_GROUP}
    for kernel, types, constants in (
        (kernels._moments, {"x": x, "parts": lines, **sizes}, tile),
        (kernels._fold, {"parts": lines, "lines": lines, **sizes, **given}, group),
        (
            kernels._apply,
            {"x": x, "lines": lines, "out": x, "pixels": "i32", "channels": "i32"},
            {"SILU": True, **tile},
        ),
        (
            backwards._sums,
            {"x": x, "grad": x, "lines": lines, "parts": lines, **sizes},
            {"SILU": True, **tile},
        ),
        (backwards._fold_gradients, {"parts": lines, "lines": lines, "found": lines, **sizes, **given}, group),
        (
            backwards._apply_gradients,
            {"x": x, "grad": x, "lines": lines, "found": lines, "dx": x, "pixels": "i32", "channels": "i32"},
            {"SILU": True, **tile},
        ),
    ):
        signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constants)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert made.asm["cubin"] and made.metadata.shared < 48 * 1024


@pytest.mark.parametrize("kind", BOUNDS)
@torch.no_grad()
def test_on_a_gpu_the_kernels_equal_the_norm_in_float64(kind):
    if not torch.cuda.is_available() or find_spec("triton") is None:
        pytest.skip("there is no GPU, or no triton: the kernels are not run here")
    dtype = getattr(torch, kind)
    for shape, groups in (((2, 320, 64, 64), 32), ((1, 192, 33, 17), 32), ((3, 10, 5, 7), 2)):
        norm = randomise(torch.nn.GroupNorm(groups, shape[1])).to("cuda", dtype)
        x = draw(*shape).to("cuda", dtype).contiguous(memory_format=torch.channels_last)
        shift = draw(shape[0], 2 * shape[1], seed=2).to("cuda", dtype)
        made = group_norm.fused(norm, x, shift)
        y = F.group_norm(x.double(), groups, norm.weight.double(), norm.bias.double())
        scale, more = shift.double()[:, :, None, None].chunk(2, dim=1)
        assert made is not None and made.is_contiguous(memory_format=torch.channels_last)
        assert error(made.double(), F.silu(y * (1 + scale) + more)) < BOUNDS[kind]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", BOUNDS)
def test_on_a_gpu_gradients_by_the_kernels_equal_those_in_float64(kind):
    if not torch.cuda.is_available() or find_spec("triton") is None:
        pytest.skip("there is no GPU, or no triton: the kernels are not run here")
    dtype = getattr(torch, kind)
    for shape, groups in (((2, 320, 64, 64), 32), ((1, 192, 33, 17), 32), ((3, 10, 5, 7), 2)):
        norm = randomise(torch.nn.GroupNorm(groups, shape[1])).to("cuda", dtype)
        x = draw(*shape).to("cuda", dtype).contiguous(memory_format=torch.channels_last)
        given = [x, *norm.parameters(), draw(shape[0], 2 * shape[1], seed=2).to("cuda", dtype)]
        grad = draw(*shape, seed=3).to("cuda", dtype)
        leaves = [part.detach().requires_grad_() for part in given]
        leaves[1:3] = norm.weight, norm.bias
        made = torch.autograd.grad(group_norm.fused(norm, leaves[0], leaves[3]), leaves, grad)
        leaves = [part.detach().double().requires_grad_() for part in given]
        scale, more = leaves[3][:, :, None, None].chunk(2, dim=1)
        y = F.silu(F.group_norm(leaves[0], groups, *leaves[1:3]) * (1 + scale) + more)
        expected = torch.autograd.grad(y, leaves, grad.double())
        assert max(error(mine.double(), whole) for mine, whole in zip(made, expected, strict=True)) < BOUNDS[kind]


@torch.no_grad()
def test_the_plain_way_is_the_formula():
    norm, x, shift = randomise(torch.nn.GroupNorm(2, 8)), draw(2, 8, 3, 4), draw(2, 16, seed=3)
    kept = x.clone()
    y = F.group_norm(x.double(), 2, norm.weight.double(), norm.bias.double())
    scale, more = shift.double()[:, :, None, None].chunk(2, dim=1)
    assert error(group_norm.norm_silu(norm, x, shift).double(), F.silu(y * (1 + scale) + more)) < 1e-6
    assert error(group_norm.norm_silu(norm, x).double(), F.silu(y)) < 1e-6
    assert error(group_norm.norm_silu(torch.nn.Identity(), x), F.silu(x)) < 1e-6
    assert torch.equal(x, kept)


class OnAGpu(torch.Tensor):
    """A tensor that says that it is on a GPU."""

    device = torch.device("cuda")


def test_kernels_are_for_gpus_and_channels_last(monkeypatch):
    monkeypatch.setattr(memory_formats, "triton_is_there", lambda: True)
    norm = torch.nn.GroupNorm(2, 8)
    plain = draw(2, 8, 3, 4)
    last = plain.contiguous(memory_format=torch.channels_last).as_subclass(OnAGpu)
    assert group_norm.fits(norm, last)  # in training too
    with torch.no_grad():
        assert group_norm.fits(norm, last)
        assert not group_norm.fits(norm, plain.as_subclass(OnAGpu))
        assert not group_norm.fits(norm, plain.contiguous(memory_format=torch.channels_last))
        assert not group_norm.fits(norm, last.double())
        assert not group_norm.fits(torch.nn.GroupNorm(2, 8, affine=False), last)
        hook = norm.register_forward_hook(lambda *_: None)
        assert not group_norm.fits(norm, last)  # tiles count their statistics by hooks
        hook.remove()
        assert group_norm.fits(norm, last)
        monkeypatch.setattr(memory_formats, "triton_is_there", lambda: False)
        assert not group_norm.fits(norm, last)


def test_a_machine_that_cannot_compile_says_so_once_and_goes_the_plain_way(monkeypatch, caplog):
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from unclip.unclip_core.nets import triton_group_norm

    def fail(*_):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(group_norm, "fits", lambda norm, x: memory_formats.triton_serves())
    monkeypatch.setattr(memory_formats, "triton_is_there", lambda: True)
    monkeypatch.setattr(memory_formats.Triton, "failed", False)
    monkeypatch.setattr(triton_group_norm, "normalised", fail)
    norm, x = randomise(torch.nn.GroupNorm(2, 8)), draw(2, 8, 3, 4)
    with torch.no_grad():
        for _ in range(2):
            assert error(group_norm.norm_silu(norm, x), F.silu(norm(x))) < 1e-6
    assert [record.getMessage() for record in caplog.records if "no C compiler" in record.getMessage()] == [
        "triton cannot compile here: norms take torch's way, which is slower. It said: no C compiler"
    ]


def test_memory_that_runs_out_is_no_fault_of_triton(monkeypatch):
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    from unclip.unclip_core.nets import triton_group_norm

    def full(*_):
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(group_norm, "fits", lambda norm, x: True)
    monkeypatch.setattr(memory_formats.Triton, "failed", False)
    error_class = torch.cuda.OutOfMemoryError
    monkeypatch.delattr(torch, "OutOfMemoryError")  # as torch before 2.5
    monkeypatch.setattr(triton_group_norm, "normalised", full)
    with torch.no_grad(), pytest.raises(error_class):
        group_norm.norm_silu(torch.nn.GroupNorm(2, 8), draw(2, 8, 3, 4))
    assert not memory_formats.Triton.failed


def test_a_triton_that_cannot_be_imported_is_done_without(monkeypatch, caplog):
    """One of another version than torch's, say."""
    monkeypatch.setattr(group_norm, "fits", lambda norm, x: memory_formats.triton_serves())
    monkeypatch.setattr(memory_formats, "triton_is_there", lambda: True)
    monkeypatch.setattr(memory_formats.Triton, "failed", False)
    monkeypatch.setitem(sys.modules, "unclip.unclip_core.nets.triton_group_norm", None)
    norm, x = randomise(torch.nn.GroupNorm(2, 8)), draw(2, 8, 3, 4)
    with torch.no_grad():
        for _ in range(2):
            assert error(group_norm.norm_silu(norm, x), F.silu(norm(x))) < 1e-6
    assert len(caplog.records) == 1 and not memory_formats.channels_last_pays(torch.device("cuda"))


def test_the_environment_can_ask_for_the_plain_ways(monkeypatch):
    asked = memory_formats.triton_is_there.__wrapped__
    monkeypatch.setenv(memory_formats.PLAIN_VARIABLE, "1")
    assert not asked()
    monkeypatch.delenv(memory_formats.PLAIN_VARIABLE)
    assert asked() == (find_spec("triton") is not None)


@pytest.mark.parametrize("kind", [ModuleType, lambda name: object()])
def test_a_stub_in_tritons_place_is_none(monkeypatch, kind):
    """Other packs leave an empty module there, which has no spec."""
    stub = kind("triton")
    monkeypatch.setitem(sys.modules, "triton", stub)
    monkeypatch.setattr(memory_formats.Triton, "failed", False)
    monkeypatch.setattr(memory_formats, "triton_is_there", memory_formats.triton_is_there.__wrapped__)
    assert not memory_formats.triton_serves() and not memory_formats.channels_last_pays(torch.device("cuda"))
    assert sys.modules["triton"] is stub
