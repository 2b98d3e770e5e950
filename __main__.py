"""The `unclip` command: reads its arguments; each sub-command calls one function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's own); returns the exit code."""
    options = _parser().parse_args(arguments)
    return options.call(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unclip", description="unCLIP without ComfyUI's canvas.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    run = commands.add_parser(
        "run",
        help="run an API-format workflow",
        description="Run an API-format workflow and save its pictures. "
        "Exit code: 0 if every output was written, 1 after an error, 2 if the workflow is invalid.",
    )
    run.add_argument("workflow", metavar="WORKFLOW.json", help="in ComfyUI: File > Export (API)")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        dest="settings",
        help="set an input; NODE is a node's id or title (may be given several times)",
    )
    run.add_argument("--output", default="output", metavar="DIR", help="for pictures (default: %(default)s)")
    run.add_argument("--json", action="store_true", help="print the report as JSON")
    run.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> int:
    from .nodes.headless import run_file

    return run_file(options.workflow, options.settings, options.output, options.json)


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train the bundled model from scratch; a run that was stopped goes on where it was.",
    )
    train.add_argument("model", choices=["tiny"])
    train.add_argument("--output", required=True, metavar="DIR", help="for checkpoints, logs and the model")
    train.add_argument(
        "--stage",
        action="append",
        choices=["clip", "prior", "decoder", "upsampler"],
        help="train this stage only (may be given several times; default: all that are not done)",
    )
    train.add_argument("--steps", type=int, help="optimizer steps of each stage (default: the recipe's)")
    train.add_argument("--seed", type=int, default=1, help="of everything random (default: %(default)s)")
    train.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    train.set_defaults(call=_train)


def _train(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .unclip_core.train.tiny import train_tiny

    train_tiny(Path(options.output), options.stage, options.seed, options.steps, options.device)
    return 0


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("evaluate", help="measure what a model draws right")
    evaluate.add_argument(
        "model",
        choices=["tiny", "describe", "edits"],
        help="tiny: pictures of captions; describe: CLIP's words for pictures; edits: interpolation and text diff",
    )
    evaluate.add_argument("--n", type=int, default=500, help="captions or scenes a split (default: %(default)s)")
    evaluate.add_argument("--seed", type=int, default=0, help="of captions and noise (default: %(default)s)")
    evaluate.add_argument("--folder", metavar="DIR", help="a model folder (default: the bundled model)")
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON")
    evaluate.set_defaults(call=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from .unclip_core.train.described import evaluate_describe
    from .unclip_core.train.edits import evaluate_edits
    from .unclip_core.train.evaluate import evaluate_tiny

    measures = {"tiny": evaluate_tiny, "describe": evaluate_describe, "edits": evaluate_edits}
    measures[options.model](options.n, options.seed, options.folder, options.json)
    return 0


def _add_bench(commands: argparse._SubParsersAction) -> None:
    bench = commands.add_parser("bench", help="measure time and memory of each stage")
    bench.add_argument("model", choices=["tiny"])
    bench.add_argument("--repeats", type=int, default=5, help="runs of which the median counts (default: %(default)s)")
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")
    bench.set_defaults(call=_bench)


def _bench(options: argparse.Namespace) -> int:
    from .unclip_core.bench import bench_tiny

    bench_tiny(options.repeats, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
