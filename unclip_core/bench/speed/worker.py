"""One fresh process of the measurement: loads a model folder with one of the two programs and draws with it.

Reads a job as JSON from its first argument, writes the figures as JSON to the last line of its output and the first
images to `job["save_to"]`.
"""

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...weights.computing import computing_dtype
from ...weights.devices import choose_device, device_peak_gib, forget_peak, synchronise
from ...weights.files import DTYPES
from ..memory import peak_gib
from ..stages import PROMPT
from .efficiency import count_flops, matrix_rate
from .parts import place_pipeline, read_parts
from .profiles import profiled

GUIDANCE = (4.0, 8.0)
PROFILED_STEPS = 7
"""Steps of the longest stage under the profiler, at most: it keeps every kernel. Other stages are cut as much."""

Draw = Callable[[int], Tensor]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load and draw as the job says.

    Args:
        job: `family` ("karlo", "kandinsky22"), `program` ("diffusers"; all else is ours), `folder`, `dtype`, `batch`,
            `steps` of the stages, `side` of the images (Kandinsky's), `images` (how many batches), `save_to` (a file
            for the first batch), `device` (its name). May have `warm` (how many batches are drawn before those that
            count, else 1), `further` (other sizes of batches, drawn behind; profiled only if `profile_further`),
            `offload` (parts wait in main memory and
            are on the device while they run), `count` (FLOP), `rate` (of matrices), `profile` (where the time goes),
            `stages` (what each takes).

    Returns:
        `load`: seconds; `first`: seconds from the prompt to the first batch, after loading; `per_image`: seconds per
        image of each batch behind the warm ones; `cpu_per_image`: the same in seconds that a CPU worked for it, which
        others' work on the machine hardly changes (waiting threads count too: compare with one thread); `peak_memory`:
        GiB, of the whole process so far; `peak_device_memory`: GiB of the device's, None for a CPU. If asked for:
        `flop` of an image, see `count_flops`; `matrix_rate`; `stages`: seconds of a batch by stage; `profile` of a
        batch in fewer steps, see `profiled`; `further`: the same by batch.
    """
    job = dict(job)
    device = choose_device(job["device"])
    forget_peak(device)
    load = loader(job.get("family", "karlo"), job["program"])
    began = time.perf_counter()
    draw = load(job, device)
    synchronise(device)
    loading = time.perf_counter() - began
    figures, image = _drawn(draw, job, device)
    torch.save(image, job["save_to"])
    figures |= {"load": loading, **_looked_into(draw, job, device)}
    further: dict[str, Any] = {}
    for batch in job.get("further", ()):
        profile = job.get("profile") and job.get("profile_further", True)
        job |= {"batch": batch, "count": False, "rate": False, "profile": profile}  # `draw` reads it of this very job
        forget_peak(device)
        more, _ = _drawn(draw, job, device)
        further[str(batch)] = more | {"load": loading, **_looked_into(draw, job, device)}
    return figures | {"further": further}


def _drawn(draw: Draw, job: dict[str, Any], device: torch.device) -> tuple[dict[str, Any], Tensor]:
    """Times and memory of batches of the job's size; and the first of these."""
    images, seconds, cpu = [], [], []
    for number in range(job["images"]):
        start, busy = time.perf_counter(), time.process_time()
        images.append(draw(number).cpu())
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
    warm = job.get("warm", 1)
    figures = {
        "first": seconds[0],
        "per_image": [s / job["batch"] for s in seconds[warm:]],
        "cpu_per_image": [s / job["batch"] for s in cpu[warm:]],
        "peak_memory": peak_gib(),
        "peak_device_memory": device_peak_gib(device),
        "threads": torch.get_num_threads(),
    }
    return figures, images[0]


def _looked_into(draw: Draw, job: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """What the job asks for beside times and memory; it comes after them, for it needs both itself."""
    found: dict[str, Any] = {}
    if job.get("count"):
        found["flop"] = count_flops(lambda: draw(0)) / job["batch"]
    if job.get("rate"):
        found["matrix_rate"] = matrix_rate(device, computing_dtype(DTYPES[job["dtype"]], device))
    if job.get("stages"):
        found["stages"] = _stages(draw, job, device)
    if job.get("profile"):
        whole = job["steps"]
        share = min(1.0, PROFILED_STEPS / max(whole))
        # `draw` reads them of this very job; of less than two steps diffusers makes no schedule.
        job["steps"] = [min(steps, max(2, round(steps * share))) for steps in whole]
        draw(0)
        found["profile"] = profiled(lambda: draw(0).cpu(), device) | {"steps": job["steps"]}
        job["steps"] = whole
    return found


def _stages(draw: Draw, job: dict[str, Any], device: torch.device) -> dict[str, float]:
    """Seconds of a batch by stage, each of which waits for the device."""
    laps: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        synchronise(device)
        now = time.perf_counter()
        laps[stage], clock = now - clock, now

    job["lap"] = lap
    draw(0)
    del job["lap"]
    return laps


def loader(family: str, program: str) -> Callable[[dict[str, Any], torch.device], Draw]:
    """What loads a family's model with a program ("diffusers", else ours) and returns how it draws."""
    if family == "kandinsky22":
        from . import kandinsky

        return kandinsky.load_diffusers if program == "diffusers" else kandinsky.load_ours
    return load_diffusers if program == "diffusers" else load_ours


def load_ours(job: dict[str, Any], device: torch.device) -> Draw:
    """Our program, see `read_parts`."""
    part = read_parts(job, device, ("clip", "prior", "decoder", "upsampler"))
    return lambda seed: _draw_ours(part, job, seed)


def _draw_ours(part: Callable[[str], Any], job: dict[str, Any], seed: int) -> Tensor:
    from ...diffusion.noise import BatchNoise
    from ...pipelines import encode_text, sample_decoder, sample_prior, upscale

    batch, steps, lap = job["batch"], job["steps"], job.get("lap", lambda stage: None)
    rest = {"seeds": [0] * batch, "sampler": "ddpm", "noise": BatchNoise(torch.Generator().manual_seed(seed), batch)}
    text = encode_text(part("clip"), [PROMPT] * batch)
    lap("text")
    embeds = sample_prior(part("prior"), text, steps=steps[0], guidance_scale=GUIDANCE[0], **rest)
    lap("prior")
    small = sample_decoder(part("decoder"), embeds, text=text, steps=steps[1], guidance_scale=GUIDANCE[1], **rest)
    lap("decoder")
    large = upscale(part("upsampler"), small, steps=steps[2], **rest)
    lap("upsampler")
    return large


def load_diffusers(job: dict[str, Any], device: torch.device) -> Draw:
    """diffusers' pipeline, as its documentation loads it."""
    import diffusers.pipelines as pipelines
    from diffusers.pipelines.deprecated import unclip

    unclip.pipeline_unclip.F = _Functional()
    pipelines.unclip = unclip  # where published folders say that the text projection lies; it has moved since
    pipeline = unclip.UnCLIPPipeline.from_pretrained(job["folder"], torch_dtype=DTYPES[job["dtype"]])
    place_pipeline(pipeline, job, device)
    pipeline.set_progress_bar_config(disable=True)
    return lambda seed: _draw_diffusers(pipeline, job, seed)


class _Functional:
    """torch.nn.functional for diffusers' pipeline, whose bicubic enlargement a CPU knows in float32 only."""

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    @staticmethod
    @functools.wraps(F.interpolate)  # the pipeline looks at the signature for what it may ask
    def interpolate(x: Tensor, **how: Any) -> Tensor:
        return F.interpolate(x.float(), **how).to(x.dtype)


def _draw_diffusers(pipeline: Any, job: dict[str, Any], seed: int) -> Tensor:
    prior, decoder, super_res = job["steps"]
    made = pipeline(
        [PROMPT] * job["batch"],
        prior_num_inference_steps=prior,
        decoder_num_inference_steps=decoder,
        super_res_num_inference_steps=super_res,
        generator=torch.Generator().manual_seed(seed),
        prior_guidance_scale=GUIDANCE[0],
        decoder_guidance_scale=GUIDANCE[1],
        output_type="np",
    )
    return torch.from_numpy(made.images)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
