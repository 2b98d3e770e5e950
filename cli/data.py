"""`unclip data`: the data that the bundled models are trained on."""

import argparse
from pathlib import Path

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
    things.add_argument("--output", required=True, metavar="DIR", help="for the data, packages and renderings")
    things.add_argument("--packages", metavar="DIR", help="where the packages lie already, as `npm pack` names them")
    things.add_argument("--small", type=int, default=200_000, metavar="N", help="pictures of 64 px (%(default)s)")
    things.add_argument("--large", type=int, default=4_000, metavar="N", help="pictures of 256 px (%(default)s)")
    things.add_argument("--scenes", type=float, default=0.26, help="share of scenes of two things (%(default)s)")
    things.add_argument("--shapes", type=float, default=0.1, help="share of plain shapes (%(default)s)")
    things.add_argument("--seed", type=int, default=0, help="of all that is chosen (default: %(default)s)")
    things.set_defaults(call=_make_things)


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
        )
    )
