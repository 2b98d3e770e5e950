"""Of what a device can multiply, how much a program makes use of: FLOP counted, over the rate of plain products."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ...weights.devices import synchronise

SIDES = {"cpu": 2048}
"""Sides of the matrices by kind of device: large enough for its full rate."""
OTHER_SIDE = 8192

_ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)
"""Ways of attention that torch's own counter leaves out."""


def count_flops(run: Callable[[], Any]) -> int:
    """Run something and return the floating-point operations of its products, convolutions and attention.

    A multiplication and an addition are two; elementwise operations and norms are not counted. What calls oneDNN, a
    kernel of its own or a recorded graph goes uncounted, so a program is counted in torch's own operations.
    """
    mapping = {getattr(torch.ops.aten, name): _attention_flop for name in _ATTENTION if hasattr(torch.ops.aten, name)}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        run()
    return int(counter.get_total_flops())


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int | None = None, seconds: float = 0.5) -> float:
    """Return the rate, FLOP/s, at which the device multiplies two square matrices: the best of several products.

    Args:
        device: that multiplies.
        dtype: of the matrices.
        side: of the matrices; None for `SIDES`.
        seconds: to measure for, after a product that warms up.
    """
    side = side or SIDES.get(device.type, OTHER_SIDE)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    _seconds_of(lambda: a @ b, device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        times.append(_seconds_of(lambda: a @ b, device))
    return 2 * side**3 / min(times)


def _seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - began


def efficiency(runs: Mapping[int, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Sum up runs by batch, each a dictionary of figures by program, of which some hold `flop` and `matrix_rate`.

    Returns:
        `flop_per_image`, counted on diffusers' program, for both draw the same in as many steps; `matrix_rate`, FLOP/s;
        by batch and program `per_image` (median seconds), `peak_memory` and `peak_device_memory` (GiB, medians), and
        `of_matrix_rate`: the FLOP of an image over its seconds and the rate.
    """
    flop, rate = _found(runs, "diffusers", "flop"), _found(runs, "ours", "matrix_rate")
    found: dict[str, Any] = {"flop_per_image": flop, "matrix_rate": rate, "batches": {}}
    for batch, pairs in runs.items():
        found["batches"][str(batch)] = {
            program: _of_program([pair[program] for pair in pairs], flop, rate) for program in sorted(pairs[0])
        }
    return found


def _of_program(runs: Sequence[dict[str, Any]], flop: float | None, rate: float | None) -> dict[str, Any]:
    seconds = statistics.median(statistics.median(run["per_image"]) for run in runs)
    return {
        "per_image": seconds,
        "peak_memory": statistics.median(run["peak_memory"] for run in runs),
        "peak_device_memory": _median([run.get("peak_device_memory") for run in runs]),
        "of_matrix_rate": flop / seconds / rate if flop and rate else None,
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _found(runs: Mapping[int, Sequence[dict[str, Any]]], program: str, key: str) -> float | None:
    return next((pair[program][key] for pairs in runs.values() for pair in pairs if key in pair[program]), None)


def efficiency_text(found: dict[str, Any]) -> list[str]:
    """What `efficiency` found, as lines for people."""
    lines = []
    if found["flop_per_image"] and found["matrix_rate"]:
        lines.append(
            f"  {found['flop_per_image'] / 1e12:.3g} TFLOP an image; products of matrices run at "
            f"{found['matrix_rate'] / 1e12:.3g} TFLOP/s"
        )
    for batch, programs in found["batches"].items():
        for program, row in programs.items():
            words = f"  batch {batch}, {program}: {row['per_image']:.3g} s an image"
            if row["of_matrix_rate"] is not None:
                words += f", {row['of_matrix_rate']:.1%} of the matrix rate"
            if row["peak_device_memory"] is not None:
                words += f", {row['peak_device_memory']:.2f} GiB of the device"
            lines.append(words)
    return lines
