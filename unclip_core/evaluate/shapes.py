"""How much of a prompt a model draws rightly, from text through all stages, by the judge of the world of shapes."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from ..diffusion.noise import sample_seeds
from ..families.loading import SHAPES, placed_model
from ..output import progress_bar, say
from ..pipelines import text_to_image
from ..pipelines.settings import Settings
from ..weights.choices import AUTO
from ..weights.devices import computing_on
from ..weights.files import write_whole
from ..world.evaluation import FRACTIONS, Tally, evaluation_scenes
from .contact_sheet import ContactSheets


def evaluate_tiny(
    n: int = 500,
    seed: int = 0,
    model: str | Path | None = None,
    as_json: bool = False,
    batch: int = 16,
    settings: Settings | None = None,
    output: str | Path | None = None,
    device: str = AUTO,
) -> dict[str, Any]:
    """Draw `n` prompts of trained and `n` of held-out pairs, judge the images, print and return the figures.

    Args:
        n: prompts a split, half of them single things.
        seed: of prompts and noise; the noise of prompt `i` has seed + i.
        model: a model folder; None for the bundled one of shapes.
        as_json: print JSON in place of a table.
        batch: prompts drawn together; it does not change the images.
        settings: how to draw; None for the model's own.
        output: a folder for the figures (`evaluation.json`) and contact sheets; None writes nothing.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.

    Returns:
        `trained` and `held_out`, each with `single` and `pair`: fractions of images of the last stage whose
        FRACTIONS are right, and `n`; under `at_64` the same for the decoder's images; and how it was measured.
    """
    prompts = evaluation_scenes(n, seed)
    seeds = sample_seeds(seed, len(prompts))
    drawn_by = placed_model(model or SHAPES, device)
    large, small, sheets = Tally(), Tally(), ContactSheets()
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)  # what cannot be written is said before hours of drawing
    started = time.monotonic()
    for at in progress_bar(range(0, len(prompts), batch), desc="evaluate", unit="batch"):
        rows = slice(at, at + batch)
        drawing = text_to_image(drawn_by, [p[3] for p in prompts[rows]], seeds[rows], settings or Settings(decoded=4))
        images = drawing.large.cpu()
        scores = large.add_images(prompts[rows], images.permute(0, 3, 1, 2))
        sheets.add(prompts[rows], images, scores)
        small.add_images(prompts[rows], drawing.small.cpu().permute(0, 3, 1, 2))
    figures = {
        **large.fractions(),
        "at_64": small.fractions(),
        "prompts_per_split": n,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
        **computing_on(device),
    }
    if output is not None:
        sheets.save(Path(output))
        write_whole(Path(output) / "evaluation.json", json.dumps(figures, indent=2).encode())
    say(json.dumps(figures, indent=2) if as_json else table(figures))
    return figures


def table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent."""
    lines = [f"{'':22}{'n':>6}" + "".join(f"{name:>15}" for name in FRACTIONS)]
    for where, tallies in (("", figures), (" at 64 px", figures["at_64"])):
        for split in ("trained", "held_out"):
            for kind, row in tallies[split].items():
                values = "".join(f"{100 * row[name]:>14.1f}%" for name in FRACTIONS)
                lines.append(f"{split + ' ' + kind + where:22.22}{row['n']:>6}{values}")
    return "\n".join(lines)
