"""Where the time goes: a draw under torch's profiler, its kernels (a CPU's operations) summed by what they are for."""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from ...weights.devices import synchronise

KINDS = {
    "layout changes": r"nchw\w*to\w*nhwc|nhwc\w*to\w*nchw|converttensor|nhwcaddpadding|transpose\w*kernel|reorder",
    "attention": r"attention|flash|fmha|sdpa|softmax",
    "norms": r"norm(?!al)|moments|welford|fusedparams|^_(moments|fold|apply|sums|fold_gradients|apply_gradients)$",
    "convolutions": r"conv(?!ert)|fprop|implicit_gemm|winograd|im2col",
    "products": r"gemm|gemv|nvjet|cutlass|cublas|splitk|aten::(b|add|badd|sparse_)?b?mm$|matmul|linear|aten::dot",
    "copies": r"copy|memcpy|memset|catarray|contiguous|clone|aten::(cat|to|stack|fill_|zero_|expand)$",
    "elementwise": (
        r"elementwise|triton|vectorized|unrolled|reduce|index|interp|upsample|avg_?pool|distribution|"
        r"aten::(add|sub|rsub|mul|div|silu|gelu|sigmoid|tanh|exp|log|sin|cos|clamp|clamp_min|clamp_max|lerp|where|neg|"
        r"pow|sqrt|rsqrt|mean|sum|abs|round|addcmul|addcdiv|normal|randn|arange|cumsum|sort|argsort|topk|embedding)_?$"
    ),
}
"""Kinds of work, and what of a kernel's or an operation's name tells it; the first that matches counts."""
OTHER = "other"
LAUNCHES = re.compile(r"^(cuda|hip|cu)\w*Launch|^urEnqueueKernelLaunch|^zeCommandListAppendLaunchKernel")
ACTIVITIES = {"cuda": ProfilerActivity.CUDA, "xpu": ProfilerActivity.XPU}
TOP = 12

_PATTERNS = {kind: re.compile(words, re.IGNORECASE) for kind, words in KINDS.items()}


def kind_of(name: str) -> str:
    """What a kernel or an operation is for, a name in `KINDS` or `OTHER`."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(name)), OTHER)


def profiled(run: Callable[[], Any], device: torch.device) -> dict[str, Any]:
    """Run something under the profiler, which slows the host down: shares tell more than seconds.

    Returns:
        `seconds` by kind of work, the largest first, which sum up to `busy`: seconds in which the device's kernels ran,
        or, on devices whose kernels torch does not see, a CPU's operations; `wall`: seconds in all; `idle_share`: of
        those, what was not busy; `calls`: kernels or operations; `launches` and `launch_seconds`: calls by which the
        host started kernels or graphs of them, and the host's seconds in them; `top`: name, seconds and calls of the
        kernels that took longest.
    """
    accelerator = ACTIVITIES.get(device.type)
    synchronise(device)
    with profile(activities=[ProfilerActivity.CPU, *([accelerator] if accelerator else [])]) as seen:
        began = time.perf_counter()
        run()
        synchronise(device)
        wall = time.perf_counter() - began
    return summed_up(seen.events(), wall, accelerator is not None)


def summed_up(events: Iterable[Any], wall: float, on_accelerator: bool) -> dict[str, Any]:
    """The figures of `profiled`, of torch's events (times in µs)."""
    seconds: dict[str, float] = defaultdict(float)
    names: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    spans: list[tuple[float, float]] = []
    launches, launching = 0, 0.0
    for event in events:
        on_cpu = event.device_type == DeviceType.CPU
        if on_cpu and LAUNCHES.search(event.name):
            launches, launching = launches + 1, launching + event.self_cpu_time_total / 1e6
        if on_cpu is on_accelerator or getattr(event, "is_user_annotation", False):
            continue
        span = event.time_range
        took = (event.self_cpu_time_total if on_cpu else span.end - span.start) / 1e6
        spans.append((span.start, span.end))
        seconds[kind_of(event.name)] += took
        names[event.name][0] += took
        names[event.name][1] += 1
    covered = covered_by(spans) / 1e6 if on_accelerator else sum(seconds.values())
    top = sorted(names.items(), key=lambda item: -item[1][0])[:TOP]
    return {
        "seconds": dict(sorted(seconds.items(), key=lambda item: -item[1])),
        "busy": sum(seconds.values()),
        "wall": wall,
        "idle_share": max(0.0, 1 - covered / wall),
        "calls": len(spans),
        "launches": launches,
        "launch_seconds": launching,
        "top": [[name[:160], took, int(calls)] for name, (took, calls) in top],
    }


def covered_by(spans: Iterable[tuple[float, float]]) -> float:
    """The length of what spans (start, end) cover together: kernels on several streams run beside each other."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def profile_text(found: dict[str, Any]) -> list[str]:
    """What `profiled` found, as lines for people."""
    busy = found["busy"] or 1.0
    lines = [
        f"    busy {found['busy']:.3g} s of {found['wall']:.3g} s ({found['idle_share']:.0%} idle), "
        f"{found['calls']:,} calls, {found['launches']:,} launches in {found['launch_seconds']:.3g} s of the host"
    ]
    return lines + [f"    {kind:15} {took / busy:6.1%}  {took:.3g} s" for kind, took in found["seconds"].items()]
