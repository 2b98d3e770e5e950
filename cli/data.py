"""`unclip data`: the data that the bundled models are trained on."""

import argparse
from pathlib import Path

from ..unclip_core.output import say
from .exits import run_and_report
from .parser import Commands


def add_data(commands: Commands) -> None:
    """`unclip data`: a recipe's pictures and captions, as files that `unclip train` reads."""
    data = commands.add_parser(
        "data",
        help="make a recipe's data",
        description="Make the data of a recipe: pictures with captions, as files that `unclip train --data` reads.",
    )
    worlds = data.add_subparsers(dest="world", required=True, metavar="WORLD")
    things = worlds.add_parser(
        "things",
        help="drawings of things, with captions in nine languages",
        description="Fetch freely licensed drawings from the npm registry, check their hashes, and compose pictures "
        "with captions: DIR/small/*.tar (64 px: clip, prior, decoder) and DIR/large/*.tar (256 px: upsampler). "
        "What is there already is not made again.",
    )
    things.add_argument(
        "--output", default="things", metavar="DIR", help="for the data, packages and renderings (%(default)s)"
    )
    things.add_argument("--packages", metavar="DIR", help="where the packages lie already, as `npm pack` names them")
    things.add_argument("--small", type=int, default=200_000, metavar="N", help="pictures of 64 px (%(default)s)")
    things.add_argument("--large", type=int, default=4_000, metavar="N", help="pictures of 256 px (%(default)s)")
    things.add_argument("--scenes", type=float, default=0.26, help="share of scenes of two things (%(default)s)")
    things.add_argument("--shapes", type=float, default=0.1, help="share of plain shapes (%(default)s)")
    things.add_argument("--seed", type=int, default=0, help="of all that is chosen (default: %(default)s)")
    things.add_argument(
        "--captions",
        type=int,
        default=1,
        metavar="N",
        help="of a small picture, in any of the languages (%(default)s)",
    )
    things.add_argument("--workers", type=int, default=0, metavar="N", help="processes that draw (default: none)")
    things.set_defaults(call=_make_things)
    _add_judge(worlds)


def _add_judge(worlds: Commands) -> None:
    judge = worlds.add_parser(
        "judge",
        help="train the judge of things",
        description="Train the small net that `unclip evaluate things` judges images with, on the drawings that "
        "`unclip data things` has fetched, into DIR/judge.safetensors; a run that was stopped goes on.",
    )
    judge.add_argument("--output", default="things", metavar="DIR", help="the data's folder (default: %(default)s)")
    judge.add_argument("--packages", metavar="DIR", help="as of things")
    judge.add_argument("--steps", type=int, default=4_000, help="optimizer steps of 128 crops (default: %(default)s)")
    judge.add_argument(
        "--minutes", type=float, default=0.0, metavar="M", help="end it after that time too, and its cosine with it"
    )
    judge.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    judge.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    judge.set_defaults(call=_train_judge)


def _train_judge(options: argparse.Namespace) -> int:
    from ..unclip_core.recipes.things.dataset import open_world
    from ..unclip_core.recipes.things.judge_training import train_and_measure

    def train() -> None:
        folder = Path(options.output)
        world = open_world(folder, Path(options.packages) if options.packages else None)
        say(train_and_measure(world.sprites, folder, options.steps, options.seed, options.device, options.minutes))

    return run_and_report(train)


def _make_things(options: argparse.Namespace) -> int:
    from ..unclip_core.recipes.things.dataset import make_data
    from ..unclip_core.recipes.things.pictures import Shares

    return run_and_report(
        lambda: make_data(
            Path(options.output),
            options.small,
            options.large,
            options.seed,
            Shares(options.scenes, options.shapes),
            Path(options.packages) if options.packages else None,
            options.captions,
            options.workers,
        )
    )
