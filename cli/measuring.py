"""`unclip evaluate` and `unclip bench`: measuring."""

import argparse
import sys
from functools import partial

from .exits import Commands, said
from .unused import refuse_unused

OF_SCENES = {"n", "seed", "folder", "json"}
EVALUATE_USES = {
    "tiny": OF_SCENES | {"output"}, "describe": OF_SCENES, "edits": OF_SCENES | {"theta", "inverted"},
    None: {"measured", "data", "output", "source", "small", "batch", "loras", "neighbours", "clip", "clip_weights",
           "device", "n", "seed", "json"},
}  # fmt: skip
BENCH_USES = {
    "tiny": {"repeats", "dtype", "json"}, "karlo": {"size", "dtype", "steps", "folder", "json"}, "parity": {"json"},
    "speed": {"size", "dtypes", "batches", "rounds", "folder", "json", "plot", "stage_steps"},
    "steps": {"n", "folder", "json", "plot"}, "inversion": {"n", "folder", "json"},
}  # fmt: skip


def add_evaluate(commands: Commands) -> None:
    """`unclip evaluate`: what a model draws right."""
    evaluate = commands.add_parser("evaluate", help="measure what a model draws right")
    evaluate.add_argument(
        "model",
        nargs="?",
        choices=["tiny", "describe", "edits"],
        help="of the bundled model's world (left out with --model and --data). tiny: images of captions; "
        "describe: CLIP's words for images; edits: interpolation and text diff",
    )
    evaluate.add_argument("--n", type=int, help="captions or scenes a split (default: 500; edits: 200 scenes in all)")
    evaluate.add_argument("--seed", type=int, default=0, help="of captions and noise (default: %(default)s)")
    evaluate.add_argument("--folder", metavar="DIR", help="a model folder (default: the bundled model)")
    evaluate.add_argument(
        "--theta",
        type=float,
        nargs="+",
        metavar="θ",
        help="edits: the text diff's ways, each 0..1, a row each (default: 0 to 0.5 by tenths)",
    )
    evaluate.add_argument(
        "--inverted",
        action="store_true",
        help="edits: start the text diff from the noise of the unedited image (DDIM inversion)",
    )
    evaluate.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_evaluate_own(evaluate)
    evaluate.set_defaults(call=partial(_evaluate, evaluate))


def _add_evaluate_own(evaluate: argparse.ArgumentParser) -> None:
    own = evaluate.add_argument_group(
        "any model on any images",
        "CLIP score, the prior's cosine, CLIP-FID and CLIP-KID (not Inception's), precision and recall; of --n images.",
    )
    own.add_argument("--model", dest="measured", metavar="DIR", help="a model folder, or 'bundled'")
    own.add_argument(
        "--data",
        metavar="PATH",
        help="a folder of images with .txt captions, a saved Hugging Face dataset, or webdataset shards",
    )
    own.add_argument(
        "--output",
        metavar="DIR",
        help="for evaluation.json and evaluation.html, a page with images (of tiny: contact sheets)",
    )
    own.add_argument(
        "--from",
        dest="source",
        choices=["text", "pictures"],
        default="text",
        help="draw from captions, or from the true images' own embeddings (default: %(default)s)",
    )
    own.add_argument("--small", action="store_true", help="measure the decoder's images, without the upsampler")
    own.add_argument("--batch", type=int, default=8, help="images drawn together (default: %(default)s)")
    own.add_argument(
        "--lora",
        nargs=2,
        action="append",
        default=[],
        metavar=("FILE", "STRENGTH"),
        dest="loras",
        help="draw with a LoRA (may be given several times)",
    )
    own.add_argument("--neighbours", type=int, default=3, metavar="K", help="of precision and recall (%(default)s)")
    own.add_argument(
        "--clip",
        metavar="ARCHITECTURE",
        help="compare by a CLIP of open_clip, such as ViT-B-32, in place of the model's own",
    )
    own.add_argument("--clip-weights", metavar="FILE", help="its weights")
    own.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")


def _evaluate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    refuse_unused(parser, options, EVALUATE_USES[options.model])
    if options.model is None:
        return _evaluate_own(options)
    from ..unclip_core.evaluate.describe import evaluate_describe
    from ..unclip_core.evaluate.edits import THETAS, evaluate_edits
    from ..unclip_core.evaluate.shapes import evaluate_tiny

    if options.model == "edits":
        measure = partial(evaluate_edits, thetas=options.theta or THETAS, inverted=options.inverted)
    else:
        measure = {"tiny": partial(evaluate_tiny, output=options.output), "describe": evaluate_describe}[options.model]
    count = (200 if options.model == "edits" else 500) if options.n is None else options.n
    return said(lambda: measure(count, options.seed, options.folder, options.json))


def _strength(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"--lora takes a file and a strength, which must be a number, not {text!r}.") from error


def _evaluate_own(options: argparse.Namespace) -> int:
    from ..unclip_core.evaluate.evaluation import evaluate_model
    from ..unclip_core.evaluate.generation import Draw

    if options.measured is None or options.data is None:
        print("unclip: say what to evaluate: tiny, describe or edits, or --model and --data.", file=sys.stderr)
        return 2
    how = Draw(options.source, options.small, options.seed, options.batch)
    return said(
        lambda: evaluate_model(
            options.measured,
            options.data,
            count=500 if options.n is None else options.n,
            how=how,
            loras=[(path, _strength(strength)) for path, strength in options.loras],
            clip=options.clip,
            clip_weights=options.clip_weights,
            neighbours=options.neighbours,
            device=options.device,
            output=options.output,
            as_json=options.json,
        )
    )


def add_bench(commands: Commands) -> None:
    """`unclip bench`: time, memory, and quality by steps."""
    bench = commands.add_parser("bench", help="measure time and memory of each stage")
    bench.add_argument(
        "model",
        choices=["tiny", "karlo", "parity", "speed", "steps", "inversion"],
        help="tiny: the bundled model; karlo: the real size with random weights; "
        "parity: how far Karlo is from diffusers (which has to be installed); "
        "speed: time and memory beside diffusers; steps: quality by solver and steps; "
        "inversion: how well images come back from their embedding and noise",
    )
    bench.add_argument("--repeats", type=int, default=5, help="runs of which the median counts (default: %(default)s)")
    bench.add_argument("--size", choices=["full", "small"], help="of karlo (default: full) or speed (default: small)")
    bench.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], help="of karlo (default: bf16) or tiny (fp32)")
    bench.add_argument("--steps", type=int, default=2, help="of each stage of karlo (default: %(default)s)")
    bench.add_argument(
        "--stage-steps",
        type=int,
        nargs=3,
        metavar=("PRIOR", "DECODER", "UPSAMPLER"),
        help="of speed (default: 10 10 4, of size full 25 25 7)",
    )
    bench.add_argument(
        "--folder",
        metavar="DIR",
        help="karlo, steps, inversion: a model to measure; karlo, speed: where the random ones are to stay",
    )
    bench.add_argument("--json", action="store_true", help="print the figures as JSON")
    bench.add_argument("--plot", metavar="FILE.png", help="speed, steps: draw the figures too")
    bench.add_argument("--rounds", type=int, default=3, help="speed: pairs of processes (default: %(default)s)")
    bench.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="speed: images drawn together")
    bench.add_argument("--dtypes", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"], help="of speed")
    bench.add_argument("--n", type=int, default=24, help="steps, inversion: images a point (default: %(default)s)")
    bench.set_defaults(call=partial(_bench, bench))


def _bench(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    refuse_unused(parser, options, BENCH_USES[options.model])
    from ..unclip_core.bench import inversion as bench_inversion
    from ..unclip_core.bench import karlo as bench_karlo
    from ..unclip_core.bench import tiny as bench
    from ..unclip_core.bench.parity import table as parity
    from ..unclip_core.bench.speed import steps
    from ..unclip_core.bench.speed import table as speed

    size, n, folder, as_json = options.size, options.n, options.folder, options.json
    measures = {
        "tiny": lambda: bench.bench_tiny(options.repeats, as_json=as_json, dtype=options.dtype or "fp32"),
        "karlo": lambda: bench_karlo.bench_karlo(
            size or "full", options.dtype or "bf16", options.steps, folder, as_json
        ),
        "parity": lambda: all(row.holds for row in parity.bench_parity(as_json)),
        "speed": lambda: speed.bench_speed(
            size or "small",
            options.dtypes,
            options.batches,
            options.rounds,
            folder,
            as_json,
            options.plot,
            options.stage_steps,
        ),
        "steps": lambda: steps.bench_steps(n, folder, as_json, options.plot),
        "inversion": lambda: bench_inversion.bench_inversion(n, folder, as_json),
    }
    return said(measures[options.model])
