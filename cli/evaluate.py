"""`unclip evaluate`: how well a model draws."""

import argparse
from typing import TYPE_CHECKING

from ..unclip_core.output import say
from .exits import run_and_report
from .parser import Commands, Parser, add_device, add_ray, check_ray, read_workers

if TYPE_CHECKING:
    from ..unclip_core.evaluate.evaluation import Spread


def add_evaluate(commands: Commands) -> None:
    """`unclip evaluate`: any model on any images, or one of the measures on the world of shapes, or of things."""
    evaluate = commands.add_parser(
        "evaluate",
        usage="unclip evaluate (--model DIR --data PATH | MEASURE) [options]",
        help="measure what a model draws right",
        description="Measure any model on any images (--model and --data), or a model of the bundled model's world by "
        "one of the measures.",
    )
    _add_images_options(evaluate)
    evaluate.set_defaults(call=_evaluate_images)
    measures = evaluate.add_measures(
        title="measures",
        metavar="MEASURE",
        prog="unclip evaluate",
        description="on a bundled model's world; each has its own --help",
    )
    _add_tiny(measures)
    _add_describe(measures)
    _add_edits(measures)
    _add_things(measures)


def _add_tiny(measures: Commands) -> None:
    tiny = measures.add_parser("tiny", help="images of captions")
    _add_world_options(tiny, "captions a split", 500)
    tiny.add_argument("--output", metavar="DIR", help="for evaluation.json and contact sheets")
    tiny.set_defaults(call=_evaluate_tiny)


def _add_describe(measures: Commands) -> None:
    describe = measures.add_parser("describe", help="CLIP's words for images")
    _add_world_options(describe, "scenes a split", 500)
    describe.set_defaults(call=_evaluate_describe)


def _add_edits(measures: Commands) -> None:
    edits = measures.add_parser("edits", help="interpolation and text diff")
    _add_world_options(edits, "scenes in all", 200)
    edits.add_argument(
        "--theta",
        type=float,
        nargs="+",
        metavar="θ",
        help="how far the text diff goes, each 0..1, a row each (default: 0 to 0.5 by tenths)",
    )
    edits.add_argument(
        "--inverted",
        action="store_true",
        help="start the text diff from the noise of the unedited image (DDIM inversion)",
    )
    edits.set_defaults(call=_evaluate_edits)


def _add_things(measures: Commands) -> None:
    things = measures.add_parser("things", help="drawings of things: the table of their model's card")
    _add_world_options(things, "prompts a row", 500)
    things.add_argument("--data", default="things", metavar="DIR", help="the folder of `unclip data` (%(default)s)")
    things.add_argument("--packages", metavar="DIR", help="as of `unclip data` (default: in the data's folder)")
    things.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="some rows (default: all)")
    things.add_argument("--output", metavar="DIR", help="for evaluation.json and contact sheets")
    things.set_defaults(call=_evaluate_things)


def _add_world_options(measure: Parser, counted: str, count: int) -> None:
    """The options that all measures on the world share; `--n` counts what is `counted`."""
    measure.add_argument("--n", type=int, default=count, help=f"{counted} (default: %(default)s)")
    measure.add_argument("--seed", type=int, default=0, help="of captions and noise (default: %(default)s)")
    measure.add_argument("--folder", metavar="DIR", help="a model (default: the bundled one of that world)")
    measure.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_device(measure)


def _add_images_options(evaluate: Parser) -> None:
    own = evaluate.add_argument_group(
        "any model on any images",
        "CLIP score, the prior's cosine, CLIP-FID and CLIP-KID (not Inception's), precision and recall; of --n images.",
    )
    own.add_argument(
        "--model", metavar="DIR", help="a model folder, or the name of a bundled model, such as 'bundled (shapes)'"
    )
    own.add_argument(
        "--data",
        metavar="PATH",
        help="a folder of images with .txt captions, a saved Hugging Face dataset, or webdataset shards",
    )
    own.add_argument("--n", type=int, default=500, help="images (default: %(default)s)")
    own.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    own.add_argument("--output", metavar="DIR", help="for evaluation.json and evaluation.html, a page with images")
    own.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_drawing_options(own)
    _add_comparing_options(own)


def _add_drawing_options(own: argparse._ArgumentGroup) -> None:
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
    add_device(own)
    add_ray(own)


def _add_comparing_options(own: argparse._ArgumentGroup) -> None:
    own.add_argument("--neighbours", type=int, default=3, metavar="K", help="of precision and recall (%(default)s)")
    own.add_argument(
        "--clip",
        metavar="ARCHITECTURE",
        help="compare by a CLIP of open_clip, such as ViT-B-32, in place of the model's own",
    )
    own.add_argument("--clip-weights", metavar="FILE", help="its weights")


def _evaluate_tiny(options: argparse.Namespace) -> int:
    from ..unclip_core.evaluate.shapes import evaluate_tiny

    return run_and_report(
        lambda: evaluate_tiny(
            options.n, options.seed, options.folder, options.json, output=options.output, device=options.device
        )
    )


def _evaluate_describe(options: argparse.Namespace) -> int:
    from ..unclip_core.evaluate.describe import evaluate_describe

    return run_and_report(
        lambda: evaluate_describe(options.n, options.seed, options.folder, options.json, device=options.device)
    )


def _evaluate_edits(options: argparse.Namespace) -> int:
    from ..unclip_core.evaluate.edits import THETAS, evaluate_edits

    thetas = options.theta or THETAS
    return run_and_report(
        lambda: evaluate_edits(
            options.n,
            options.seed,
            options.folder,
            options.json,
            thetas=thetas,
            inverted=options.inverted,
            device=options.device,
        )
    )


def _evaluate_things(options: argparse.Namespace) -> int:
    from ..unclip_core.recipes.things.evaluation import evaluate_things

    return run_and_report(
        lambda: evaluate_things(
            options.n,
            options.seed,
            options.folder,
            options.json,
            options.data,
            options.rows,
            options.output,
            options.device,
            options.packages,
        )
    )


def _evaluate_images(options: argparse.Namespace) -> int:
    if options.model is None or options.data is None:
        say("unclip: say what to evaluate: tiny, describe, edits or things, or --model and --data.", to_stderr=True)
        return 2
    return run_and_report(lambda: _evaluate_model(options))


def _evaluate_model(options: argparse.Namespace) -> object:
    from ..unclip_core.evaluate.evaluation import evaluate_model
    from ..unclip_core.evaluate.generation import Draw

    check_ray(options)
    return evaluate_model(
        options.model,
        options.data,
        count=options.n,
        how=Draw(options.source, options.small, options.seed, options.batch),
        loras=[(path, _strength(strength)) for path, strength in options.loras],
        clip=options.clip,
        clip_weights=options.clip_weights,
        neighbours=options.neighbours,
        device="cpu" if options.ray else options.device,
        output=options.output,
        as_json=options.json,
        spread=_spread(options) if options.ray else None,
    )


def _spread(options: argparse.Namespace) -> "Spread":
    from functools import partial

    from .mapping.engine import Pool
    from .mapping.shares import evaluate

    workers = read_workers(options.ray_workers, "--ray-workers")
    return partial(evaluate, Pool(workers, options.gpus_per_worker, options.address))


def _strength(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"--lora takes a file and a strength, which must be a number, not {text!r}.") from error
