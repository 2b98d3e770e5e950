"""How much of a prompt a model of things draws rightly, from text through all stages: the table of its model card."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ...diffusion.noise import sample_seeds
from ...families.loading import placed_model
from ...models import UnclipModel
from ...output import say
from ...pipelines import text_to_image
from ...pipelines.settings import Settings
from ...plotting.sheets import levels, tiled
from ...weights.choices import AUTO
from ...weights.devices import computing_on
from ...weights.files import write_whole
from .dataset import LARGE, World, open_world
from .edits import by_prior, edits
from .judge import JUDGE_FILE, Judge, load_judge
from .measures import described, halfway, pictures_as_tensor, upsampling, zero_shot
from .neighbours import Neighbours
from .originality import diversity, memory
from .pictures import Picture
from .questions import ROWS, Question, Scores, questions, score, shares

SHOWN, COLUMNS = 48, 8
"""Images on a row's contact sheet, and in a row of it."""
BATCH = 32
STAGES: dict[str, Callable[[UnclipModel, World, Judge, int, int], dict[str, float]]] = {
    "clip": lambda model, world, judge, n, seed: zero_shot(model, world, n, seed),
    "describe": lambda model, world, judge, n, seed: described(model, world, n, seed),
    "halfway": halfway,
    "edits": edits,
    "edits_told": lambda model, world, judge, n, seed: edits(model, world, judge, n, seed, told=True),
    "edits_by_prior": lambda model, world, judge, n, seed: edits(model, world, judge, n, seed, by_prior),
    "upsampler": lambda model, world, judge, n, seed: upsampling(model, world, n, seed),
    "memory": lambda model, world, judge, n, seed: memory(model, world, n, seed),
    "diversity": lambda model, world, judge, n, seed: diversity(model, world, n, seed),
}
"""Measures that start from true pictures, by their names."""
MEASURES = (*ROWS, *STAGES)


def evaluate_things(
    n: int = 500,
    seed: int = 0,
    model: str | Path | None = None,
    as_json: bool = False,
    data: str | Path = "things",
    rows: Sequence[str] = (),
    output: str | Path | None = None,
    device: str = AUTO,
    packages: str | Path | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Draw `n` prompts a row at the model's default settings, judge the images, print and return the shares.

    Args:
        n: prompts, or true pictures, a row.
        seed: of prompts and noise; the noise of prompt `i` has seed + i.
        model: a model folder; None for the bundled model.
        as_json: print JSON in place of a table.
        data: the folder of `unclip data things`, with the judge of `unclip data judge`.
        rows: some of MEASURES; none for all.
        output: a folder for `evaluation.json` and a contact sheet a row, written row by row; None writes nothing.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
        packages: a folder with the packages' files; None for those in the data's own.
        settings: of what is drawn from prompts; None for the model's own.

    Returns:
        For each row the shares of what is right and `n`; under `true` the same of true pictures, which tells how far
        the judge itself can be trusted; and how it was measured.

    Raises:
        ValueError: a row is unknown, `n` is less than 1, or the data or its judge is missing.
    """
    if n < 1 or (unknown := set(rows) - set(MEASURES)):
        raise ValueError(f"n must be 1 or more and rows some of {', '.join(MEASURES)}; got {n} and {sorted(unknown)}.")
    judge, world = load_judge(Path(data) / JUDGE_FILE), open_world(Path(data), Path(packages) if packages else None)
    drawn_by, other, started = placed_model(model, device), Neighbours(world), time.monotonic()
    figures: dict[str, Any] = {"seed": seed, **computing_on(device), "true": {}}
    for name in rows or MEASURES:
        if name in STAGES:
            figures[name] = STAGES[name](drawn_by, world, judge, n, seed)
        else:
            asked = questions(world, name, n, seed)
            scores, images = draw_and_score(drawn_by, judge, asked, seed, name, settings, other)
            figures[name], figures["true"][name] = shares(scores), shares(_true_scores(world, judge, asked, other))
            _keep_sheet(output, name, asked, images, scores)
        figures |= {"seconds": round(time.monotonic() - started, 1), "threads": torch.get_num_threads()}
        if output is not None:
            Path(output).mkdir(parents=True, exist_ok=True)
            write_whole(Path(output) / "evaluation.json", json.dumps(figures, indent=2).encode())
    say(json.dumps(figures, indent=2) if as_json else table(figures))
    return figures


def draw_and_score(
    model: UnclipModel,
    judge: Judge,
    asked: Sequence[Question],
    seed: int,
    name: str,
    settings: Settings | None = None,
    other: Neighbours | None = None,
) -> tuple[list[Scores], list[Tensor]]:
    """Draw what is asked and score it, single things by another judge too; the first images `[H, W, 3]` are kept."""
    seeds = sample_seeds(seed, len(asked))
    scores: list[Scores] = []
    images: list[Tensor] = []
    for at in tqdm(range(0, len(asked), BATCH), desc=name, unit="batch"):
        part = asked[at : at + BATCH]
        large = text_to_image(model, [each.prompt for each in part], seeds[at : at + BATCH], settings).large
        pairs = zip(large.permute(0, 3, 1, 2), part, strict=True)
        scores += [_scored(judge, other, image, question.picture) for image, question in pairs]
        images += list(levels(large))[: max(0, SHOWN - len(images))]
    return scores, images


def _scored(judge: Judge, other: Neighbours | None, image: Tensor, picture: Picture) -> Scores:
    scores = score(judge, image, picture)
    return scores if other is None or picture.kind != "thing" else scores | other.score(image, picture)


def _true_scores(world: World, judge: Judge, asked: Sequence[Question], other: Neighbours) -> list[Scores]:
    """The scores of the pictures that are asked for, as the data has them."""
    scores = []
    for question in asked:
        image = pictures_as_tensor(world, [question.picture], LARGE)[0].permute(2, 0, 1)
        scores.append(_scored(judge, other, image, question.picture))
    return scores


def _keep_sheet(
    output: str | Path | None, name: str, asked: Sequence[Question], images: list[Tensor], scores: Sequence[Scores]
) -> None:
    """`<name>.png`, and `<name>.txt` with each image's place, prompt and what is wrong in it."""
    if output is None:
        return
    Path(output).mkdir(parents=True, exist_ok=True)
    Image.fromarray(tiled(images, COLUMNS).numpy()).save(Path(output) / f"{name}.png")
    lines = []
    for number, (question, found) in enumerate(list(zip(asked, scores, strict=True))[:SHOWN]):
        wrong = ", ".join(fact for fact, right in found.items() if not right)
        lines.append(f"{number // COLUMNS + 1}.{number % COLUMNS + 1} {question.prompt} [{wrong}]\n")
    (Path(output) / f"{name}.txt").write_text("".join(lines), encoding="utf-8")


def table(figures: dict[str, Any]) -> str:
    """The figures as text: shares in percent, others as they are; behind them the same of true pictures."""
    lines = []
    for name in MEASURES:
        if name in figures:
            true = figures["true"].get(name)
            lines.append(
                f"{name:18}{_cells(figures[name], name)}" + (f"   (true: {_cells(true, name)})" if true else "")
            )
    return "\n".join(lines)


def _cells(row: dict[str, float], name: str) -> str:
    def cell(key: str, value: float) -> str:
        if key == "n":
            return f"n {value}"
        if name in ("memory", "diversity"):
            return f"{key} {value:.3f}"
        return f"{key} {value:.2f} dB" if name == "upsampler" else f"{key} {100 * value:.1f} %"

    return ", ".join(cell(key, value) for key, value in row.items())
