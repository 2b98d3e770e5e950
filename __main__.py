"""The `unclip` command: reads its arguments; each sub-command calls one function."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the process's own); returns the exit code."""
    options = _parser().parse_args(arguments)
    return options.call(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unclip", description="unCLIP without ComfyUI's canvas.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_queue(commands)
    _add_train(commands)
    _add_embed(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    _add_convert(commands)
    _add_download(commands)
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


def _add_queue(commands: argparse._SubParsersAction) -> None:
    queue = commands.add_parser(
        "queue",
        help="queue a workflow many times on ComfyUI servers",
        description="Queue an API-format workflow many times over one or several ComfyUI servers and download what it "
        "saves. A journal in the output folder lets the same command go on after an interrupt or a crash. "
        "Exit code: 0 if every row has its files, 1 if not, 2 if the input is wrong, 130 if interrupted.",
    )
    queue.add_argument("workflow", metavar="WORKFLOW.json", help="in ComfyUI: File > Export (API)")
    queue.add_argument("--server", action="append", required=True, metavar="URL", dest="servers",
                       help="a ComfyUI server, such as http://127.0.0.1:8188 (may be given several times)")
    queue.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", dest="settings",
                       help="set an input in every row; NODE is a node's id or title")
    queue.add_argument("--csv", metavar="FILE", help="a row a line; the first line names the inputs (NODE.INPUT)")
    queue.add_argument("--vary", action="append", default=[], metavar="NODE.INPUT=VALUES",
                       help="every value in turn: 1..8, or a,b,c, or a JSON list; several make every combination")
    queue.add_argument("--count", type=int, default=1, metavar="N", help="every row N times, with seeds counting up")
    queue.add_argument("--output", default="output", metavar="DIR", help="for files and journal (default: %(default)s)")
    queue.add_argument("--depth", type=int, default=2, metavar="N", help="prompts in a server's queue at once (2)")
    queue.add_argument("--patience", type=float, default=600.0, metavar="SECONDS",
                       help="how long to wait while no server answers (default: %(default)s)")
    queue.add_argument("--json", action="store_true", help="print the report as JSON")
    queue.set_defaults(call=_queue)


def _queue(options: argparse.Namespace) -> int:
    from .nodes.queue import queue_file

    return queue_file(
        options.workflow, options.servers, settings=options.settings, vary=options.vary, table=options.csv,
        count=options.count, output=options.output, depth=options.depth, patience=options.patience,
        as_json=options.json,
    )


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a model", description="Train the bundled model from scratch, or "
                                "one net on own pictures; a run that was stopped goes on where it was.")
    models = train.add_subparsers(dest="model", required=True, metavar="MODEL")
    _add_train_tiny(models)
    for stage, what in (("clip", "texts and pictures to embeddings"), ("prior", "a text to an image embedding"),
                        ("decoder", "an image embedding to a picture"), ("upsampler", "a picture to a larger one")):
        _add_train_own(models, stage, what)


def _add_train_tiny(models: argparse._SubParsersAction) -> None:
    tiny = models.add_parser("tiny", help="the bundled model, from scratch")
    tiny.add_argument("--output", required=True, metavar="DIR", help="for checkpoints, logs and the model")
    tiny.add_argument(
        "--stage",
        action="append",
        choices=["clip", "prior", "decoder", "upsampler"],
        help="train this stage only (may be given several times; default: all that are not done)",
    )
    tiny.add_argument("--steps", type=int, help="optimizer steps of each stage (default: the recipe's)")
    tiny.add_argument("--seed", type=int, default=1, help="of everything random (default: %(default)s)")
    tiny.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    tiny.set_defaults(call=_train)


def _add_train_own(models: argparse._SubParsersAction, stage: str, what: str) -> None:
    own = models.add_parser(stage, help=f"own pictures: {what}", description=f"Train the {stage} ({what}) on own "
                            "pictures. Exit code: 0 when done, 1 if something does not fit, 130 if interrupted.")
    own.add_argument("--data", required=True, metavar="PATH", help="a folder of pictures with .txt captions, a saved "
                     "Hugging Face dataset, or webdataset shards (.tar)")
    own.add_argument("--config", required=True, metavar="FILE", help=".toml or .json")
    own.add_argument("--output", required=True, metavar="DIR", help="the model folder that is made")
    own.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    own.add_argument("--cpu", action="store_true", help="train on the CPU though there is a GPU")
    own.set_defaults(call=_train_own)


def _train_own(options: argparse.Namespace) -> int:
    from .unclip_core.train.own.run import train_own

    return _said(lambda: train_own(options.model, options.data, options.config, options.output, options.dry_run,
                                   options.cpu))


def _add_embed(commands: argparse._SubParsersAction) -> None:
    embed = commands.add_parser("embed", help="compute CLIP's embeddings of own pictures",
                                description="Compute CLIP's embeddings of pictures and captions into safetensors "
                                "shards, once; the trainings of prior and decoder do it by themselves.")
    embed.add_argument("--data", required=True, metavar="PATH", help="as of train")
    embed.add_argument("--output", required=True, metavar="DIR", help="for the shards")
    embed.add_argument("--model", metavar="DIR", help="a model folder (default: the bundled model)")
    embed.set_defaults(call=_embed)


def _embed(options: argparse.Namespace) -> int:
    from .unclip_core.train.own.run import embed_own

    return _said(lambda: embed_own(options.data, options.output, options.model))


def _train(options: argparse.Namespace) -> int:
    from pathlib import Path

    from .unclip_core.train.tiny import train_tiny

    train_tiny(Path(options.output), options.stage, options.seed, options.steps, options.device)
    return 0


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    evaluate = commands.add_parser("evaluate", help="measure what a model draws right")
    evaluate.add_argument(
        "model",
        nargs="?",
        choices=["tiny", "describe", "edits"],
        help="of the bundled model's world (left out with --model and --data). tiny: pictures of captions; "
        "describe: CLIP's words for pictures; edits: interpolation and text diff",
    )
    evaluate.add_argument("--n", type=int, help="captions or scenes a split (default: 500; edits: 200 scenes in all)")
    evaluate.add_argument("--seed", type=int, default=0, help="of captions and noise (default: %(default)s)")
    evaluate.add_argument("--folder", metavar="DIR", help="a model folder (default: the bundled model)")
    evaluate.add_argument("--theta", type=float, nargs="+", metavar="θ", help="edits: the text diff's ways, each 0..1, "
                          "a row each (default: 0 to 0.5 by tenths)")
    evaluate.add_argument("--inverted", action="store_true", help="edits: start the text diff from the noise of the "
                          "unedited picture (DDIM inversion)")
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_evaluate_own(evaluate)
    evaluate.set_defaults(call=_evaluate)


def _add_evaluate_own(evaluate: argparse.ArgumentParser) -> None:
    own = evaluate.add_argument_group("any model on any pictures", "CLIP score, the prior's cosine, CLIP-FID and "
                                      "CLIP-KID (not Inception's), precision and recall; of --n pictures.")
    own.add_argument("--model", dest="measured", metavar="DIR", help="a model folder, or 'bundled'")
    own.add_argument("--data", metavar="PATH", help="a folder of pictures with .txt captions, a saved Hugging Face "
                     "dataset, or webdataset shards")
    own.add_argument("--output", metavar="DIR", help="for evaluation.json and evaluation.html, a page with pictures")
    own.add_argument("--from", dest="source", choices=["text", "pictures"], default="text", help="draw from captions, "
                     "or from the true pictures' own embeddings (default: %(default)s)")
    own.add_argument("--small", action="store_true", help="measure the decoder's pictures, without the upsampler")
    own.add_argument("--batch", type=int, default=8, help="pictures drawn together (default: %(default)s)")
    own.add_argument("--lora", nargs=2, action="append", default=[], metavar=("FILE", "STRENGTH"), dest="loras",
                     help="draw with a LoRA (may be given several times)")
    own.add_argument("--neighbours", type=int, default=3, metavar="K", help="of precision and recall (%(default)s)")
    own.add_argument("--clip", metavar="ARCHITECTURE", help="compare by a CLIP of open_clip, such as ViT-B-32, "
                     "in place of the model's own")
    own.add_argument("--clip-weights", metavar="FILE", help="its weights")
    own.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")


def _evaluate_own(options: argparse.Namespace) -> int:
    from .unclip_core.measure.drawing import Draw
    from .unclip_core.measure.evaluation import evaluate_model

    if options.measured is None or options.data is None:
        print("unclip: say what to evaluate: tiny, describe or edits, or --model and --data.", file=sys.stderr)
        return 2
    how = Draw(options.source, options.small, options.seed, options.batch)
    return _said(lambda: evaluate_model(
        options.measured, options.data, count=500 if options.n is None else options.n, how=how,
        loras=[(path, float(strength)) for path, strength in options.loras], clip=options.clip,
        clip_weights=options.clip_weights, neighbours=options.neighbours, device=options.device, output=options.output,
        as_json=options.json,
    ))


def _evaluate(options: argparse.Namespace) -> int:
    if options.model is None:
        return _evaluate_own(options)
    from .unclip_core.train.described import evaluate_describe
    from .unclip_core.train.edits import THETAS, evaluate_edits
    from .unclip_core.train.evaluate import evaluate_tiny

    if options.model == "edits":
        measure = partial(evaluate_edits, thetas=options.theta or THETAS, inverted=options.inverted)
    else:
        measure = {"tiny": evaluate_tiny, "describe": evaluate_describe}[options.model]
    count = (200 if options.model == "edits" else 500) if options.n is None else options.n
    return _said(lambda: measure(count, options.seed, options.folder, options.json))


def _add_bench(commands: argparse._SubParsersAction) -> None:
    bench = commands.add_parser("bench", help="measure time and memory of each stage")
    bench.add_argument(
        "model",
        choices=["tiny", "karlo", "parity", "speed", "steps", "inversion"],
        help="tiny: the bundled model; karlo: the real size with random weights; "
        "parity: how far Karlo is from diffusers (which has to be installed); "
        "speed: time and memory beside diffusers; steps: quality by solver and steps; "
        "inversion: how well pictures come back from their embedding and noise",
    )
    bench.add_argument("--repeats", type=int, default=5, help="runs of which the median counts (default: %(default)s)")
    bench.add_argument("--size", choices=["full", "small"], help="of karlo (default: full) or speed (default: small)")
    bench.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], help="of karlo (default: bf16) or tiny (fp32)")
    bench.add_argument("--steps", type=int, default=2, help="of each stage of karlo (default: %(default)s)")
    bench.add_argument("--folder", metavar="DIR", help="karlo: a model to run, or where the random one is to stay")
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")
    bench.add_argument("--plot", metavar="FILE.png", help="speed, steps: draw the figures too")
    bench.add_argument("--rounds", type=int, default=3, help="speed: pairs of processes (default: %(default)s)")
    bench.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="speed: pictures drawn together")
    bench.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], help="of speed")
    bench.add_argument("--n", type=int, default=24, help="steps, inversion: pictures a point (default: %(default)s)")
    bench.set_defaults(call=_bench)


def _bench(options: argparse.Namespace) -> int:
    from .unclip_core import bench, bench_inversion, bench_karlo
    from .unclip_core.parity import table as parity
    from .unclip_core.speed import steps
    from .unclip_core.speed import table as speed

    size, n, folder, as_json = options.size, options.n, options.folder, options.json
    measures = {
        "tiny": lambda: bench.bench_tiny(options.repeats, as_json=as_json, dtype=options.dtype or "fp32"),
        "karlo": lambda: bench_karlo.bench_karlo(
            size or "full", options.dtype or "bf16", options.steps, folder, as_json),
        "parity": lambda: all(row.holds for row in parity.bench_parity(as_json)),
        "speed": lambda: speed.bench_speed(
            size or "small", options.dtypes, options.batches, options.rounds, folder, as_json, options.plot),
        "steps": lambda: steps.bench_steps(n, folder, as_json, options.plot),
        "inversion": lambda: bench_inversion.bench_inversion(n, folder, as_json),
    }
    return _said(measures[options.model])


def _add_convert(commands: argparse._SubParsersAction) -> None:
    convert = commands.add_parser(
        "convert",
        help="convert Karlo's weights",
        description="Write Karlo as a folder of safetensors, from kakaobrain's own files or from a diffusers folder.",
    )
    convert.add_argument("source", metavar="SRC", help="the folder with the files")
    convert.add_argument("target", metavar="DST", help="a new folder, for example ComfyUI/models/unclip/karlo")
    convert.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], default="fp32", help="(default: %(default)s)")
    convert.set_defaults(call=_convert)


def _convert(options: argparse.Namespace) -> int:
    from .unclip_core.checkpoints.convert import convert_and_say

    return _said(lambda: convert_and_say(options.source, options.target, options.dtype))


def _add_download(commands: argparse._SubParsersAction) -> None:
    download = commands.add_parser(
        "download",
        help="fetch public weights",
        description="Fetch Karlo's public weights from the Hugging Face hub (licence: CreativeML Open RAIL-M); "
        "a download that was stopped goes on where it was.",
    )
    download.add_argument("name", choices=["karlo", "karlo-variations"])
    download.add_argument("--to", metavar="DIR", help="the models folder (default: ComfyUI's models/unclip)")
    download.set_defaults(call=_download)


def _download(options: argparse.Namespace) -> int:
    from .unclip_core.checkpoints.download import download

    return _said(lambda: download(options.name, options.to))


def _said(call: Callable[[], object]) -> int:
    """Run `call`; what a user can set right is said in a sentence, with exit code 1, or 130 if interrupted.

    A `call` that returns False has said itself what does not hold: that is exit code 1 too.
    """
    try:
        if call() is False:
            return 1
    except KeyboardInterrupt:
        print("unclip: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"unclip: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
