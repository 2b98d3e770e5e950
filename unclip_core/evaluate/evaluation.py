"""Evaluate any model on any images: the figures of one run, as a dictionary, a JSON file and a page."""

import json
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.opening import open_images
from ..data.samples import Collection, summary
from ..models import UnclipModel
from ..output import progress_bar, say
from ..pipelines.settings import Settings
from ..weights.choices import AUTO
from ..weights.devices import computing_on
from ..weights.files import write_whole
from .distances import frechet_distance, kernel_distance
from .gathering import Gathered, gather
from .generation import Draw, draw_pairs
from .manifolds import precision_recall
from .measurer import Plan
from .page import page

CLIP_SCORE_WEIGHT = 2.5
"""w of CLIPScore = w · max(cos, 0) (Hessel et al. 2021, arXiv 2104.08718, section 3)."""

NOTE = (
    "CLIP-FID and CLIP-KID are computed on CLIP's embeddings, scaled to a mean square of 1, and not on "
    "Inception's: they do not compare with FIDs from papers. CLIP-FID falls with the number of images: compare "
    "runs of the same number only. CLIP-KID is unbiased, and may be below 0."
)


Spread = Callable[[Plan, Collection, int, MutableMapping[str, str]], Gathered]
"""Gathers the first so many good samples of a collection by other processes, and notes the bad ones."""


def evaluate_model(
    model: str | Path,
    data: str | Path,
    *,
    count: int = 500,
    how: Draw | None = None,
    loras: Sequence[tuple[str | Path, float]] = (),
    clip: str | None = None,
    clip_weights: str | Path | None = None,
    neighbours: int = 3,
    device: str = AUTO,
    output: str | Path | None = None,
    as_json: bool = False,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Draw images for the captions of `data`, measure them beside the true ones, print and return the figures.

    Args:
        model: a model folder, or the name of a bundled model, such as "bundled (shapes)".
        data: a folder of images with captions, a saved Hugging Face dataset, or webdataset shards.
        count: the first so many good samples are used.
        how: how to draw; None for the model's own settings.
        loras: files and strengths of LoRAs to draw with.
        clip: an architecture of open_clip to compare with, in place of the model's own CLIP.
        clip_weights: the file of its weights.
        neighbours: k of precision and recall.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
        output: a folder for `evaluation.json` and `evaluation.html`.
        as_json: print JSON in place of a table.
        spread: has other processes draw and measure; None does it here.

    Raises:
        ValueError: data or settings are not usable, or too few images are good.
        CheckpointError: the model, a LoRA, or the CLIP to compare with cannot be read, does not fit or lacks a part.
        OSError: the output cannot be written.
    """
    if count < 1:
        raise ValueError(f"The number of images must be 1 or more, not {count}.")
    how = how or Draw()
    kept = tuple((str(path), strength) for path, strength in loras)
    weights = None if clip_weights is None else str(clip_weights)
    plan = Plan(str(model), str(data), how, kept, clip, weights, device)
    loaded, encoder = plan.open()
    collection = open_images(data)
    check_neighbours(min(count, len(collection)), neighbours)  # before anything is drawn
    bad: dict[str, str] = {}
    if spread is None:
        pairs = draw_pairs(loaded, collection, count, how, bad)
        total = -(-min(count, len(collection)) // how.batch)
        gathered = gather(progress_bar(pairs, desc="evaluate", unit="batch", total=total, disable=None), encoder)
    else:
        gathered = spread(plan, collection, count, bad)
    figures = {
        "model": loaded.name,
        "family": loaded.family,
        "loras": {Path(path).name: strength for path, strength in loras},
        "data": Path(data).name,
        "fingerprint": collection.fingerprint(),
        "left_out": dict(sorted(bad.items())),
        **_drawing_figures(how, loaded),
        **({} if spread else computing_on(device)),  # other processes have devices of their own
        "compared_by": encoder.name,
        **measured(gathered, neighbours),
        "note": NOTE,
    }
    say(json.dumps(figures, indent=2) if as_json else table(figures))  # first: the disk may be full
    if output is not None:
        save(figures, gathered, Path(output))
    if bad and not as_json:
        say(summary(bad, collection))
    return figures


def _drawing_figures(how: Draw, model: UnclipModel) -> dict[str, Any]:
    """How the images were drawn, as the report states it."""
    return {
        "drawn_from": how.source,
        "stage": "upsampler" if how.upsamples(model) else "decoder",
        "seed": how.seed,
        "settings": asdict(settings_of(model, how)),
    }


def settings_of(model: UnclipModel, how: Draw) -> Settings:
    """The settings that images are drawn with: those of `how`, and the model's own where it states none.

    Stages that play no part, or that the model lacks, are None.
    """
    given = how.settings
    return replace(
        given,
        prior=(given.prior or model.prior.settings) if how.source == "text" else None,
        decoder=given.decoder or model.decoder.settings,
        upsampler=(given.upsampler or model.upsampler.settings) if how.upsamples(model) else None,
    )


def check_neighbours(count: int, neighbours: int) -> None:
    """Raise ValueError where images are too few for precision and recall with so many neighbours."""
    if count <= max(neighbours, 1):
        raise ValueError(
            f"Only {count} images can be measured; with {neighbours} neighbours at least {max(neighbours, 1) + 1} are "
            "needed, and some hundreds for figures that mean something."
        )


def measured(gathered: Gathered, neighbours: int = 3) -> dict[str, Any]:
    """Compute the figures.

    `clip_fid`, `clip_kid`: of CLIP's vectors scaled to a mean square of 1; `precision`, `recall` with k `neighbours`;
    `similarity`: mean cosine of a drawn image and its true one. Drawn from texts also `clip_score`, of drawn and true
    images with their captions, and `prior_cosine`: mean cosine of the true image embedding with the prior's, and with
    the text's, which a prior has to beat (not there where the model's CLIP has no image encoder).

    Raises:
        ValueError: there are too few images.
    """
    count = sum(map(len, gathered.true))
    check_neighbours(count, neighbours)
    true, drawn = torch.cat(gathered.true), torch.cat(gathered.drawn)
    width = true.shape[1] ** 0.5
    precision, recall = precision_recall(true, drawn, neighbours)
    figures: dict[str, Any] = {
        "pictures": count,
        "clip_fid": frechet_distance(true * width, drawn * width),
        "clip_kid": kernel_distance(true * width, drawn * width),
        "precision": precision,
        "recall": recall,
        "neighbours": neighbours,
        "similarity": float((true * drawn).sum(dim=1).mean()),
    }
    if not gathered.texts:
        return figures
    texts = torch.cat(gathered.texts)
    figures["clip_score"] = {name: clip_score(images, texts) for name, images in (("drawn", drawn), ("true", true))}
    if gathered.prior_cosines:
        prior, text = (float(torch.cat(each).mean()) for each in (gathered.prior_cosines, gathered.text_cosines))
        figures["prior_cosine"] = {"prior": prior, "text": text, "gain": prior - text}
    return figures


def clip_score(images: Tensor, texts: Tensor) -> float:
    """CLIPScore, the mean of w · max(cos, 0) over pairs of unit vectors `[n, D]` (Hessel et al. 2021, section 3)."""
    return CLIP_SCORE_WEIGHT * float((images * texts).sum(dim=1).clamp(min=0).mean())


def table(figures: dict[str, Any]) -> str:
    """The figures as text, a line each."""
    return "\n".join(f"{name:28}{value}" for name, value in lines(figures))


def lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the figures, for people."""
    rows = [("pictures", f"{figures['pictures']:,}"), ("compared by", figures["compared_by"])]
    if score := figures.get("clip_score"):
        rows += [("CLIP score, drawn", f"{score['drawn']:.4f}"), ("CLIP score, true", f"{score['true']:.4f}")]
    if cosine := figures.get("prior_cosine"):
        rows += [
            ("cosine to true: prior", f"{cosine['prior']:.4f}"),
            ("cosine to true: text", f"{cosine['text']:.4f}"),
            ("the prior's gain", f"{cosine['gain']:+.4f}"),
        ]
    return [
        *rows,
        ("similarity to true", f"{figures['similarity']:.4f}"),
        ("CLIP-FID", f"{figures['clip_fid']:.4f}"),
        ("CLIP-KID", f"{figures['clip_kid']:.6f}"),
        ("precision", f"{figures['precision']:.4f}"),
        ("recall", f"{figures['recall']:.4f}"),
    ]


def save(figures: dict[str, Any], gathered: Gathered, folder: Path) -> None:
    """Write `evaluation.json` and `evaluation.html`, whole or not at all; names that are no UTF-8 are escaped."""
    text = json.dumps(figures, indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "evaluation.json", text.encode(errors="backslashreplace"))
    html = page(figures, lines(figures), gathered.shown)
    write_whole(folder / "evaluation.html", html.encode(errors="backslashreplace"))
