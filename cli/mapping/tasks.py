"""What is made of a batch of rows. A task loads its model once and knows nothing of Ray.

The driver knows the tasks by name alone: what they need, torch first of all, is imported once one is made.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...unclip_core.output import legible
from .results import Result
from .rows import Row

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from ...unclip_core.models import UnclipModel
    from ..headless.prompt import Node
    from ..headless.report import SavedImage

PROMPT = "prompt"
INDEX, NAME = "index", "name"
"""Of an image: its number when the run began, and its name, which finds it if the collection was changed since."""

SEED_INPUTS = ("seed", "noise_seed")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know to start.

    Attributes:
        task: a name in `TASKS`, or the path of a workflow.
        model: a model folder; None is the bundled model.
        data: the collection of images that rows name; None where rows are prompts.
        candidates: embeddings a prompt, all of them decoded.
        device: a torch device.
        dtype: of the nets, a name in `DTYPES`; "auto" is what the device computes in by itself.
        threads: of torch; 0 leaves them.
        workflow: `workflow_digest` of what the file held when the run began; None is not compared.
        folder: where the images that a workflow names are looked for, before the workflow's own folder.
    """

    task: str
    model: str | None = None
    data: str | None = None
    candidates: int = 1
    device: str = "cpu"
    dtype: str = "auto"
    threads: int = 0
    workflow: str | None = None
    folder: str = "."


class Task(Protocol):
    """Results of rows, one each and in their order; raises where one of them cannot be made."""

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """Make a batch."""
        ...


def make_task(setup: Setup) -> Task:
    """Return the task, with its model.

    Raises:
        ValueError: the task, the model or the workflow is none.
    """
    if setup.threads:
        import torch

        torch.set_num_threads(setup.threads)
    return TASKS[setup.task](setup) if setup.task in TASKS else Workflow(setup)


def run_batch(task: Task, rows: Sequence[Row]) -> list[Result]:
    """Make a batch; where that fails, each row by itself, so that only those fail that are at fault.

    Raises:
        OSError: the machine's fault, and no row's: a full disk, a lost file system.
    """
    try:
        return task(rows)
    except OSError:
        raise
    except Exception as error:  # whatever a prompt, an image or a model comes up with is the row's result
        if len(rows) == 1:
            return [Result(rows[0].id, rows[0].seed, rows[0].values, error=str(error) or type(error).__name__)]
        return [result for row in rows for result in run_batch(task, [row])]


class TextToImage:
    """Rows with a "prompt" through all stages of the model."""

    def __init__(self, setup: Setup) -> None:
        self._model, self._candidates = _load(setup), setup.candidates

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """See `Task`."""
        from ...unclip_core.embedding.arithmetic import cosine
        from ...unclip_core.pipelines import encode_image, text_to_image
        from ...unclip_core.pipelines.settings import Settings

        prompts = [_prompt(row) for row in rows]
        settings = Settings(candidates=self._candidates, decoded=self._candidates)
        drawing = text_to_image(self._model, prompts, [row.seed for row in rows], settings)
        embeds = encode_image(self._model.clip, drawing.small).cpu()
        assert drawing.text is not None
        scores = cosine(embeds, drawing.text.embeds.cpu()).tolist()
        return [
            Result(row.id, row.seed, row.values, image=_png(image), embedding=embed.tolist(), score=score)
            for row, image, embed, score in zip(rows, drawing.large, embeds, scores, strict=True)
        ]


class NamedImages:
    """Images of a collection by what a run's rows say of them.

    A worker lists the collection when it starts: after the run began, and after another one was killed. Images that
    were added or taken away meanwhile have moved the numbers of the others.

    Raises:
        ValueError: there is no collection.
    """

    def __init__(self, path: str) -> None:
        from ...unclip_core.data.opening import open_images

        self._path, self._images = path, open_images(path)

    def read(self, values: Mapping[str, Any]) -> Image:
        """Read a row's image, RGB of any size.

        Raises:
            ValueError: it is damaged, or no longer there.
        """
        index, name = int(values[INDEX]), values[NAME]
        if index >= len(self._images) or legible(self._images.name(index)) != name:
            if (found := self._places.get(name)) is None:
                raise ValueError(f"'{name}' is no longer in '{self._path}'.")
            index = found
        return self._images.read(index, captions=False).image

    @cached_property
    def _places(self) -> dict[str, int]:
        return {legible(self._images.name(index)): index for index in range(len(self._images))}


class Embed:
    """Images of a collection to CLIP's image embeddings."""

    def __init__(self, setup: Setup) -> None:
        self._model, self._images = _load(setup), NamedImages(_needed(setup))

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """See `Task`."""
        embeds = self._embeds(rows)
        return [Result(row.id, row.seed, row.values, embedding=e.tolist()) for row, e in zip(rows, embeds, strict=True)]

    def _embeds(self, rows: Sequence[Row]) -> Tensor:
        import torch

        from ...unclip_core.pipelines import encode_image

        size = self._model.clip.adapter.image_size
        seen = [_square(self._images.read(row.values), size) for row in rows]
        return encode_image(self._model.clip, torch.stack(seen)).cpu()


class Variations(Embed):
    """Images of a collection, drawn again from their embeddings."""

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """See `Task`."""
        from ...unclip_core.pipelines import variations

        embeds = self._embeds(rows)
        drawing = variations(self._model, embeds, [row.seed for row in rows])
        return [
            Result(row.id, row.seed, row.values, image=_png(image), embedding=embed.tolist())
            for row, image, embed in zip(rows, drawing.large, embeds, strict=True)
        ]


class Describe(Embed):
    """Images of a collection to captions."""

    def __init__(self, setup: Setup) -> None:
        from ...nodes.describe import AUTOMATIC, choose
        from ...unclip_core.embedding.describe import Describer
        from ...unclip_core.pipelines import embed_text

        super().__init__(setup)
        clip = self._model.clip
        phrases = choose(AUTOMATIC, "", clip)
        self._describer = Describer(lambda texts: embed_text(clip, texts), phrases)

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """See `Task`."""
        embeds = self._embeds(rows)
        said = [self._describer.describe(embed).caption for embed in embeds]
        return [
            Result(row.id, row.seed, row.values, embedding=embed.tolist(), text=choice.text, score=choice.score)
            for row, embed, choice in zip(rows, embeds, said, strict=True)
        ]


@dataclass
class Workflow:
    """An API-format workflow; a row's columns are "NODE.INPUT", and set over its own.

    Seeds that a row does not set follow from the row's id. A row holds one image: it fails where its workflow saves
    several, or files but no image. Files beside an image are not kept.

    Raises:
        ValueError: the file cannot be read, or is not the workflow that the run was begun with.
    """

    setup: Setup
    _workflow: Mapping[str, Any] = field(init=False)
    _nodes: Mapping[str, Node] = field(init=False)

    def __post_init__(self) -> None:
        """Read the file."""
        from ..headless.prompt import parse
        from ..headless.workflow_file import read_workflow

        self._workflow = read_workflow(Path(self.setup.task))
        self._nodes = parse(self._workflow)[0]
        # workers start at any time: when one was killed, when the cluster has grown, and on other machines
        if self.setup.workflow not in (None, workflow_digest(self._workflow)):
            raise ValueError(
                f"'{self.setup.task}' is not the workflow that this run was begun with: it was changed meanwhile, or "
                "this machine has another file there."
            )

    def __call__(self, rows: Sequence[Row]) -> list[Result]:
        """See `Task`."""
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> Result:
        from ..headless.run import run_workflow

        with tempfile.TemporaryDirectory() as folder:
            inputs = (self.setup.folder, Path(self.setup.task).parent)
            values = self._seeds(row) | dict(row.values)
            report = run_workflow(self._workflow, values, folder, input_dirs=inputs, device=self.setup.device)
            if report.errors:
                raise ValueError("; ".join(str(problem) for problem in report.errors))
            text = "\n".join(shown.text for shown in report.texts) or None
            result = Result(row.id, row.seed, row.values, text=text)
            path = _the_image(report.outputs)
            return result if path is None else replace(result, image=path.read_bytes(), ending=path.suffix[1:])

    def _seeds(self, row: Row) -> dict[str, int]:
        return dict.fromkeys(free_seeds(self._nodes, row.values), row.seed)


def free_seeds(nodes: Mapping[str, Node], values: Mapping[str, Any]) -> list[str]:
    """Return the seeds ("NODE.INPUT", by the node's id) of a workflow that `values` do not set, by id or by title."""
    return [
        f"{node.id}.{name}"
        for node in nodes.values()
        for name, value in node.inputs.items()
        if name in SEED_INPUTS and isinstance(value, int)
        if f"{node.id}.{name}" not in values and f"{node.title}.{name}" not in values
    ]


def check_copies(nodes: Mapping[str, Node], count: int, row: Row) -> None:
    """See whether so many copies of a row would differ, which they do by the seeds that it does not set.

    Raises:
        ValueError: it sets them all, or there is none.
    """
    if count > 1 and not free_seeds(nodes, row.values):
        raise ValueError(
            f"--count {count} would make {count} equal results of row '{row.id}': the workflow has no seed that the "
            "row does not set itself. Leave --count out, or leave a seed's column out or its cell empty."
        )


def _the_image(saved: Sequence[SavedImage]) -> Path | None:
    """Return the one image among the files of a run; None where there are no files.

    Raises:
        ValueError: there are several images, or files of which none is an image.
    """
    images = [output for output in saved if output.path.suffix.lower() in IMAGE_SUFFIXES]
    if len(images) > 1:
        nodes = ", ".join(dict.fromkeys(f"{output.title} ({output.node})" for output in images))
        raise ValueError(
            f"it saved {len(images)} images, by {nodes}; a row holds one: set batch_size and keep to 1, leave one node "
            "that saves or previews images, or lay them out by Image Grid."
        )
    if saved and not images:
        names = ", ".join(output.path.name for output in saved)
        raise ValueError(f"it saved no image, but {names}; a row holds an image or text: add Save Image.")
    return images[0].path if images else None


def workflow_digest(workflow: Any) -> str:
    """Return a hash of a workflow's nodes: their classes, inputs and titles, wherever they lie on the canvas.

    Raises:
        InvalidWorkflow: it is no workflow in the API format.
    """
    from ..headless.prompt import as_api, parse

    text = json.dumps(as_api(parse(workflow)[0]), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


TASKS: dict[str, Callable[[Setup], Task]] = {
    "text-to-image": TextToImage,
    "variations": Variations,
    "embed": Embed,
    "describe": Describe,
}
"""The tasks by name. The first reads a table of prompts, the others a collection of images."""

TABLE_TASKS = ("text-to-image",)


def _load(setup: Setup) -> UnclipModel:
    import torch

    from ...unclip_core.families.loading import load_model
    from ...unclip_core.models import PARTS
    from ...unclip_core.weights.choices import AUTO
    from ...unclip_core.weights.computing import tell_computing
    from ...unclip_core.weights.devices import own_dtype
    from ...unclip_core.weights.files import DTYPES

    device = torch.device(setup.device)
    dtype = own_dtype(device) if setup.dtype == AUTO else DTYPES[setup.dtype]
    tell_computing(dtype, device)
    model = load_model(setup.model, dtype)
    if device.type != "cpu":
        for part in PARTS:
            if model.has(part):
                getattr(model, part).module.to(device)
    return model


def _prompt(row: Row) -> str:
    if not isinstance(text := row.values.get(PROMPT), str):
        raise ValueError(f"the column '{PROMPT}' holds no text, but {text!r}")
    return text


def _needed(setup: Setup) -> str:
    if setup.data is None:
        raise ValueError(f"The task '{setup.task}' reads images: name a folder, shards or a saved dataset.")
    return setup.data


def _square(image: Image, size: int) -> Tensor:
    """The middle of an image `[size, size, 3]` in 0..1, as trainings see it."""
    from ...unclip_core.data.center_crop import center_crop

    return center_crop(image, size).float() / 255


def _png(image: Tensor) -> bytes:
    """An image `[H, W, 3]` in 0..1 as PNG."""
    import torch
    from PIL import Image

    levels = (image.detach().float().clamp(0, 1).cpu() * 255).round().to(torch.uint8)
    sink = io.BytesIO()
    Image.fromarray(levels.numpy()).save(sink, "PNG")
    return sink.getvalue()
