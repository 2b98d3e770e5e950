"""`unclip bench steps`: distance of each sampler from the converged sample, by number of steps."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...clip.adapter import TextCondition
from ...diffusion.noise import sample_seeds
from ...diffusion.samplers import SAMPLERS
from ...embedding.arithmetic import cosine
from ...families.karlo.random_weights import small_size
from ...families.loading import SHAPES, placed_model
from ...models import UnclipModel
from ...output import say
from ...pipelines import encode_text, sample_decoder, sample_prior
from ...plotting.plots import Curve, plot
from ...plotting.sheets import levels
from ...weights.choices import AUTO
from ...world.evaluation import Tally, evaluation_scenes
from ..random_karlo import random_karlo

COUNTS = (2, 4, 6, 8, 10, 16, 25)
REFERENCE = 250
COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75))


def bench_steps(
    n: int = 24,
    folder: str | None = None,
    as_json: bool = False,
    plot_to: str | None = None,
    counts: Sequence[int] = COUNTS,
    reference: int = REFERENCE,
    device: str = AUTO,
) -> dict[str, Any]:
    """Measure every sampler on the bundled model of shapes and on a small random Karlo; print and return the figures.

    The converged sample is what DDIM, the first-order ODE solver, draws in `reference` steps from the same noise. A
    sampler that adds noise of its own converges to other samples, whatever its steps: read `accuracy` for these, not
    the distance.

    Args:
        n: images a point.
        folder: a Karlo in place of the random one.
        as_json: print JSON in place of text.
        plot_to: a PNG file for the decoder's curves of that model.
        counts: of steps.
        reference: steps of the reference.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.

    Returns:
        `tiny` and `karlo`, each with `prior.<sampler>.<steps>` (1 - cosine with the reference's embedding, mean),
        `decoder.<sampler>.<steps>` (mean difference of images, 0..1, from the reference's embedding), and for tiny
        `accuracy.<sampler>.<steps>`, the share of the decoder's images that the judge finds right in everything.
    """
    scenes = evaluation_scenes(-(-n // 2), 0)[:n]
    bundled = placed_model(SHAPES, device, dtype=torch.float32)
    tiny = Study(
        bundled,
        [scene[3] for scene in scenes],
        (bundled.prior.settings.guidance_scale, bundled.decoder.settings.guidance_scale),
    )
    figures: dict[str, Any] = {"n": n, "reference_steps": reference, "tiny": tiny.run(counts, reference, scenes)}
    with ExitStack() as cleanup:
        place = Path(folder or cleanup.enter_context(tempfile.TemporaryDirectory()) + "/karlo")
        random = placed_model(random_karlo(place, small_size()), device, dtype=torch.float32)
        karlo = Study(random, ["the red cat"] * n, (4.0, 8.0))
        figures["karlo"] = karlo.run(counts, reference)
    say(json.dumps(figures, indent=2) if as_json else _text(figures))
    if plot_to:
        _plot(figures["tiny"]["decoder"], plot_to)
    return figures


@dataclass(frozen=True)
class Study:
    """A model, the prompts to draw, and the guidance scales of prior and decoder."""

    model: UnclipModel
    prompts: Sequence[str]
    guidance: tuple[float, float]

    def run(self, counts: Sequence[int], reference: int, scenes: Sequence[Any] = ()) -> dict[str, Any]:
        """Return the figures by sampler and number of steps; with `scenes`, one a prompt, the judge's accuracy too."""
        text = encode_text(self.model.clip, self.prompts)
        embeds = self._prior(text, "ddim", reference)
        images = self._decoder(text, embeds, "ddim", reference)
        found: dict[str, Any] = {"prior": {}, "decoder": {}} | ({"accuracy": {}} if scenes else {})
        for sampler in SAMPLERS:
            priors = {count: self._prior(text, sampler, count) for count in counts}
            drawn = {count: self._decoder(text, embeds, sampler, count) for count in counts}
            found["prior"][sampler] = {k: float(1 - cosine(v, embeds).mean()) for k, v in priors.items()}
            found["decoder"][sampler] = {k: float((v - images).abs().mean()) for k, v in drawn.items()}
            if scenes:
                found["accuracy"][sampler] = {k: accuracy(v, scenes) for k, v in drawn.items()}
        return found

    def _prior(self, text: TextCondition, sampler: str, steps: int) -> Tensor:
        return sample_prior(
            self.model.prior, text, steps=steps, guidance_scale=self.guidance[0], seeds=self._seeds, sampler=sampler
        )

    def _decoder(self, text: TextCondition, embeds: Tensor, sampler: str, steps: int) -> Tensor:
        return sample_decoder(
            self.model.decoder,
            embeds,
            text=text,
            steps=steps,
            guidance_scale=self.guidance[1],
            seeds=self._seeds,
            sampler=sampler,
        )

    @property
    def _seeds(self) -> list[int]:
        return sample_seeds(0, len(self.prompts))


def accuracy(images: Tensor, scenes: Sequence[Any]) -> float:
    """Return the share, 0..1, of images `[B, H, W, 3]` that the judge finds right in everything, over all splits."""
    tally = Tally()
    tally.add_images(scenes, images.cpu().permute(0, 3, 1, 2))
    rows = [row for split in tally.fractions().values() for row in split.values()]
    return sum(row["all"] * row["n"] for row in rows) / sum(row["n"] for row in rows)


def _text(figures: dict[str, Any]) -> str:
    lines = [f"{figures['n']} images a point; distance to DDIM's {figures['reference_steps']} steps"]
    for model in ("tiny", "karlo"):
        for measure, rows in figures[model].items():
            counts = list(next(iter(rows.values())))
            lines.append(f"{model} {measure:10}" + "".join(f"{count:>9}" for count in counts))
            lines += [
                f"  {sampler:12}" + "".join(f"{value:9.4f}" for value in row.values()) for sampler, row in rows.items()
            ]
    return "\n".join(lines)


def _plot(rows: dict[str, dict[int, float]], path: str) -> None:
    curves = [
        Curve(sampler, list(row), list(row.values()), colour, range(len(row)))
        for (sampler, row), colour in zip(rows.items(), COLOURS, strict=False)
    ]
    top = max(max(row.values()) for row in rows.values())
    image = plot(curves, title="Decoder: distance to 250 steps of DDIM", x_label="steps", y_range=(0.0, top * 1.05))
    Image.fromarray(levels(image).numpy()).save(path)
