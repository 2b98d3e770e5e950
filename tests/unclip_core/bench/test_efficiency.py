"""FLOP are those of closed forms, and kernels are summed by what they are for."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.nn import functional

from unclip.unclip_core.bench.speed import efficiency, profiles

CPU = torch.device("cpu")


class Small(nn.Module):
    """A convolution, attention and a product: everything whose FLOP are counted, and a norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = functional.silu(self.norm(self.conv(x)))
        rows = x.flatten(2).transpose(1, 2)[:, None]
        return self.out(functional.scaled_dot_product_attention(rows, rows, rows))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_flop_are_those_of_a_closed_form(mode):
    batch, side = 2, 6
    pixels = side**2
    convolution = 2 * batch * pixels * 3 * 8 * 9
    attention = 2 * (2 * batch * pixels**2 * 8)  # q kᵀ, and the weights times v
    product = 2 * batch * pixels * 8 * 5
    net, x = Small(), torch.randn(batch, 3, side, side)
    with mode():
        assert efficiency.count_flops(lambda: net(x)) == convolution + attention + product


def test_the_matrix_rate_is_two_n_cubed_over_the_best_time(monkeypatch):
    times = iter([9.0, 4.0, 2.0, 8.0])
    monkeypatch.setattr(efficiency, "_seconds_of", lambda run, device: run() is None or next(times))
    clock = iter([0.0, 0.1, 0.2, 0.9])
    monkeypatch.setattr(efficiency.time, "perf_counter", lambda: next(clock))
    assert efficiency.matrix_rate(CPU, torch.float32, side=16, seconds=0.5) == 2 * 16**3 / 2.0


def test_a_program_that_counts_nothing_has_no_share():
    run = {"per_image": [1.0, 3.0], "peak_memory": 2.0}
    found = efficiency.efficiency({1: [{"ours": run, "diffusers": run}]})
    assert found["flop_per_image"] is None
    assert found["batches"]["1"]["ours"] == {
        "per_image": 2.0, "peak_memory": 2.0, "peak_device_memory": None, "of_matrix_rate": None
    }  # fmt: skip
    assert efficiency.efficiency_text(found) == [
        "  batch 1, diffusers: 2 s an image", "  batch 1, ours: 2 s an image"
    ]  # fmt: skip


KERNELS = {
    "layout changes": ["void cudnn::engines_precompiled::nchwToNhwcKernel<__half, __half, float>", "nhwcToNchwKernel",
                       "void cudnn::ops::convertTensor_kernel<float>", "void nhwcAddPaddingKernel<__half>",
                       "void transpose_readWrite_alignment_kernel<float>"],
    "attention": ["pytorch_flash::flash_fwd_kernel<...>", "fmha_cutlassF_f16_aligned_64x64_rf_sm80",
                  "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "softmax_warp_forward",
                  "aten::_scaled_dot_product_flash_attention_for_cpu"],
    "norms": ["void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<c10::Half>",
              "vectorized_elementwise_kernel<4, GroupNormKernelImplInternal<c10::Half>>",
              "at::native::ComputeFusedParamsCUDAKernel", "vectorized_layer_norm_kernel", "aten::native_group_norm",
              "_moments", "_fold", "_apply", "_sums", "_fold_gradients", "_apply_gradients"],
    "convolutions": ["sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64",
                     "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized_bf16_nhwc>",
                     "implicit_convolve_sgemm", "aten::mkldnn_convolution", "aten::cudnn_convolution"],
    "products": ["nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n",
                 "cutlass::Kernel2<cutlass_80_tensorop>", "cublasLt::splitKreduce_kernel", "aten::addmm", "aten::mm",
                 "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise"],
    "copies": ["Memcpy HtoD (Pageable -> Device)", "at::native::elementwise_kernel<direct_copy_kernel_cuda>",
               "CatArrayBatchedCopy_aligned16_contig", "aten::copy_", "aten::clone", "aten::cat"],
    "elementwise": ["vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::Half>>", "triton_poi_fused_add",
                    "at::native::distribution_elementwise_grid_stride_kernel<normal_kernel>", "aten::silu", "aten::mul",
                    "aten::add_", "aten::normal_", "at::native::upsample_nearest2d_nhwc_out_frame<c10::BFloat16>",
                    "at::native::avg_pool2d_out_cuda_frame_nhwc<c10::BFloat16>"],
    "other": ["aten::view", "a kernel of somebody's"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "names"), KERNELS.items())
def test_a_kernels_name_tells_what_it_is_for(kind, names):
    assert {name: profiles.kind_of(name) for name in names} == dict.fromkeys(names, kind)


def event(name, kind, start, end, **more):
    spans = {"time_range": SimpleNamespace(start=start, end=end), "self_cpu_time_total": end - start}
    return SimpleNamespace(name=name, device_type=kind, is_user_annotation=False, **spans, **more)


def test_a_devices_kernels_are_summed_and_the_hosts_launches_are_counted():
    cpu, cuda = DeviceType.CPU, DeviceType.CUDA
    events = [
        event("aten::conv2d", cpu, 0, 900), event("cudaLaunchKernel", cpu, 10, 20),
        event("cuLaunchKernelEx", cpu, 30, 50),
        event("cudaGraphLaunch", cpu, 60, 70), event("implicit_convolve_sgemm", cuda, 100, 300),
        event("RowwiseMomentsCUDAKernel", cuda, 250, 400), event("cudaMemcpyAsync", cpu, 80, 90),
    ]  # fmt: skip
    found = profiles.summed_up(events, 1000e-6, on_accelerator=True)
    assert found["seconds"] == pytest.approx({"convolutions": 200e-6, "norms": 150e-6})
    assert found["busy"] == pytest.approx(sum(found["seconds"].values()))
    assert found["idle_share"] == pytest.approx(0.7)  # two kernels ran beside each other for 50 µs
    assert (found["calls"], found["launches"]) == (2, 3) and found["launch_seconds"] == pytest.approx(40e-6)
    assert [row[0] for row in found["top"]] == ["implicit_convolve_sgemm", "RowwiseMomentsCUDAKernel"]


def test_a_profile_names_what_ran_and_its_kinds_sum_up():
    net, x = Small(), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        found = profiles.profiled(lambda: net(x), CPU)
    assert {"convolutions", "norms", "attention", "products", "elementwise"} <= set(found["seconds"])
    assert sum(found["seconds"].values()) == pytest.approx(found["busy"]) and found["busy"] <= found["wall"] * 1.05
    assert sum(calls for _, _, calls in found["top"]) <= found["calls"] and found["launches"] == 0
    assert 0 <= found["idle_share"] < 1
    lines = profiles.profile_text(found)
    assert len(lines) == 1 + len(found["seconds"]) and "idle" in lines[0]


def test_what_overlaps_is_counted_once():
    assert profiles.covered_by([(0, 10), (5, 7), (8, 12), (20, 21)]) == 13
