"""`unclip map`: many rows to many images, without a canvas, on Ray Data."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from ..unclip_core.output import say
from ..unclip_core.weights.choices import AUTO, DTYPE_NAMES
from .exits import run_and_report
from .parser import Commands, read_workers

if TYPE_CHECKING:
    from .mapping.job import Job

TASK_NAMES = "text-to-image, variations, embed, describe"

DEFAULTS: dict[str, Any] = {"model": None, "dtype": None, "candidates": 1, "count": 1, "seed": 0, "images": "table"}
"""Of the options that some task does not read."""

_NO_CANDIDATES = {"candidates": "text-to-image alone chooses among several"}
_DRAWS_NOTHING = _NO_CANDIDATES | {
    "count": "it draws nothing, and copies of an image would be equal",
    "seed": "it draws nothing",
    "images": "it makes no image",
}
_OF_A_WORKFLOW = {
    "model": "its loader names the model",
    "dtype": "its loader has a dtype of its own",
    "candidates": "its Prior Sample has candidates of its own",
}
UNREAD: dict[str, dict[str, str]] = {
    "text-to-image": {},
    "variations": _NO_CANDIDATES,
    "embed": _DRAWS_NOTHING,
    "describe": _DRAWS_NOTHING,
}
"""The options that a task does not read, and why; `_OF_A_WORKFLOW` those of a workflow."""


def add_map(commands: Commands) -> None:
    """`unclip map`: a table or a collection of images through a task, on one machine or a cluster."""
    command = commands.add_parser(
        "map",
        help="make images of every row of a table",
        description="Make an image, an embedding or a caption of every row of a table or every image of a collection, "
        "on all CPUs or GPUs of a machine or of a Ray cluster. The same command goes on where it was stopped. "
        "Exit code: 0 if every row was made, 1 if some failed or something is wrong, 130 if interrupted.",
    )
    command.add_argument(
        "task",
        metavar="TASK",
        help=f"{TASK_NAMES}, or a workflow in the API format (.json) that saves one image, or shows text",
    )
    command.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a table of prompts (.csv, .jsonl, .parquet), or images (a folder, .tar shards, a saved dataset)",
    )
    command.add_argument(
        "--output",
        required=True,
        metavar="DIR",
        help="a folder, or an address such as s3://…; with --address one that every machine of the cluster reaches",
    )
    command.add_argument(
        "--model", metavar="DIR", help="a model folder (default: the bundled model); a workflow names its own"
    )
    command.add_argument("--batch", type=int, default=16, help="rows made together (default: %(default)s)")
    command.add_argument("--workers", default="1", metavar="N or MIN:MAX", help="processes (default: %(default)s)")
    command.add_argument(
        "--gpus-per-worker", type=float, default=0.0, help="0 works on the CPU, 0.5 puts two on a GPU (default: 0)"
    )
    command.add_argument("--address", help="of a Ray cluster, or auto (default: Ray is started here and stopped)")
    command.add_argument(
        "--seed", type=int, default=DEFAULTS["seed"], help="mixed into every row's seed (default: %(default)s)"
    )
    command.add_argument(
        "--count",
        type=int,
        default=DEFAULTS["count"],
        help="images a row, where something is drawn (default: %(default)s)",
    )
    command.add_argument(
        "--candidates",
        type=int,
        default=DEFAULTS["candidates"],
        help="of text-to-image: embeddings a prompt; CLIP keeps the best image",
    )
    command.add_argument(
        "--dtype",
        choices=DTYPE_NAMES,
        help="of the nets (default: the device's own; fp32 on a CPU); a workflow has its own",
    )
    command.add_argument("--images", choices=["table", "files"], default=DEFAULTS["images"], help="where images go")
    command.add_argument("--shards", action="store_true", help="write webdataset shards beside the table")
    command.add_argument("--json", action="store_true", help="print the counts as JSON")
    command.set_defaults(call=_map)


def _map(options: argparse.Namespace) -> int:
    return run_and_report(lambda: run_map(options))


def run_map(options: argparse.Namespace) -> int:
    """Run the command's options and return the exit code.

    Raises:
        ValueError: the task is not known or does not read an option, a number is out of range, or as of
            `mapping.job.run`.
        OSError: the output cannot be written.
    """
    from dataclasses import asdict

    from .mapping.job import run
    from .mapping.progress import ProgressLines, progress_line

    counts = run(_job(options), ProgressLines(lambda line: say(line, to_stderr=True)))
    say(json.dumps(asdict(counts)) if options.json else progress_line(counts))
    if counts.gone:
        say(
            f"{counts.gone:,} rows of the output are no longer in the table: earlier runs made them, they are kept.",
            to_stderr=True,
        )
    if counts.failed:
        say(
            f"{counts.failed:,} rows failed: the column 'error' of failed-*.parquet in '{options.output}' says why. "
            "The same command tries them again.",
            to_stderr=True,
        )
    return int(counts.failed > 0)


def _job(options: argparse.Namespace) -> "Job":
    from pathlib import Path

    from .mapping.job import Job
    from .mapping.results import Output
    from .mapping.tasks import TABLE_TASKS, TASKS, Setup

    is_workflow = options.task not in TASKS
    if is_workflow and not options.task.endswith(".json"):
        raise ValueError(f"There is no task '{options.task}'. There are {TASK_NAMES}, and workflows (.json).")
    _check_read(options)
    if is_workflow:
        from .headless.workflow_file import read_workflow

        read_workflow(Path(options.task))  # what is wrong with it is said before Ray starts
    else:
        from ..unclip_core.families.loading import load_model

        load_model(options.model)
    on_gpu = options.gpus_per_worker > 0
    setup = Setup(
        task=options.task,
        model=options.model,
        data=None if options.task in TABLE_TASKS or is_workflow else options.data,
        candidates=options.candidates,
        device="cuda" if on_gpu else "cpu",
        dtype=options.dtype or AUTO,
        threads=0 if on_gpu else 1,
    )
    return Job(
        setup=setup,
        data=options.data,
        output=Output(options.output, files=options.images == "files", shards=options.shards),
        batch=options.batch,
        workers=read_workers(options.workers),
        gpus=options.gpus_per_worker,
        address=options.address,
        seed=options.seed,
        count=options.count,
    )


def _check_read(options: argparse.Namespace) -> None:
    """Raise ValueError where options are given that the task does not read."""
    unread = UNREAD.get(options.task, _OF_A_WORKFLOW)
    given = [name for name in unread if getattr(options, name) != DEFAULTS[name]]
    if given:
        told = ", ".join(f"--{name} ({unread[name]})" for name in given)
        instead = "leave it out" if len(given) == 1 else "leave them out"
        if options.task not in UNREAD:
            instead += ", and set what is meant in the workflow or in a column NODE.INPUT of the table"
        raise ValueError(f"'{options.task}' does not read {told}: {instead}.")
