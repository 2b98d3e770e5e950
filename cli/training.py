"""`unclip train` and `unclip embed`: training."""

import argparse

from .exits import run_and_report
from .parser import Commands, add_device, add_ray, check_ray, read_workers


def add_train(commands: Commands) -> None:
    """`unclip train`: the bundled model of shapes, or a net on own images."""
    train = commands.add_parser(
        "train",
        help="train a model",
        description="Train the bundled model of shapes from scratch, or "
        "one net on own images; a run that was stopped goes on where it was.",
    )
    models = train.add_subparsers(dest="model", required=True, metavar="MODEL")
    _add_train_tiny(models)
    for stage, what in (
        ("clip", "texts and images to embeddings"),
        ("prior", "a text to an image embedding"),
        ("decoder", "an image embedding to an image"),
        ("upsampler", "an image to a larger one"),
    ):
        _add_train_own(models, stage, what)


def _add_train_tiny(models: Commands) -> None:
    tiny = models.add_parser("tiny", help="the bundled model of shapes, from scratch")
    tiny.add_argument("--output", required=True, metavar="DIR", help="for checkpoints, logs and the model")
    tiny.add_argument(
        "--stage",
        action="append",
        choices=["clip", "prior", "decoder", "upsampler", "second_upsampler"],
        help="train this stage only (may be given several times; default: all that are not done)",
    )
    tiny.add_argument("--steps", type=int, help="optimizer steps of each stage (default: the recipe's)")
    tiny.add_argument("--seed", type=int, default=1, help="of everything random (default: %(default)s)")
    tiny.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    tiny.set_defaults(call=_train)


def _train(options: argparse.Namespace) -> int:
    from pathlib import Path

    from ..unclip_core.recipes.shapes.recipe import train_tiny

    return run_and_report(
        lambda: train_tiny(Path(options.output), options.stage, options.seed, options.steps, options.device)
    )


def _add_train_own(models: Commands, stage: str, what: str) -> None:
    own = models.add_parser(
        stage,
        help=f"own images: {what}",
        description=f"Train the {stage} ({what}) on own "
        "images. Exit code: 0 when done, 1 if something does not fit, 130 if interrupted.",
    )
    own.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a folder of images with .txt captions, a saved Hugging Face dataset, or webdataset shards (.tar)",
    )
    own.add_argument("--config", required=True, metavar="FILE", help=".toml or .json")
    own.add_argument("--output", required=True, metavar="DIR", help="the model folder that is made")
    own.add_argument("--dry-run", action="store_true", help="check everything, write nothing")
    own.add_argument("--cpu", action="store_true", help="train on the CPU though there is a GPU")
    own.set_defaults(call=_train_own)


def _train_own(options: argparse.Namespace) -> int:
    from ..unclip_core.train.run import train

    return run_and_report(
        lambda: train(options.model, options.data, options.config, options.output, options.dry_run, options.cpu)
    )


def add_embed(commands: Commands) -> None:
    """`unclip embed`: CLIP's embeddings of own images."""
    embed = commands.add_parser(
        "embed",
        help="compute CLIP's embeddings of own images",
        description="Compute CLIP's embeddings of images and captions into safetensors "
        "shards, once. The trainings of prior and decoder do it by themselves, and find what "
        "stands in training/embeddings of their output already.",
    )
    embed.add_argument("--data", required=True, metavar="PATH", help="as of train")
    embed.add_argument(
        "--output", required=True, metavar="DIR", help="for the shards, such as MODEL/training/embeddings"
    )
    embed.add_argument("--model", metavar="DIR", help="a model folder (default: the bundled model)")
    add_device(embed)
    embed.add_argument("--batch", type=int, default=256, metavar="N", help="samples at once (default: %(default)s)")
    embed.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (default: none)")
    add_ray(embed)
    embed.set_defaults(call=_embed)


def _embed(options: argparse.Namespace) -> int:
    return run_and_report(lambda: _embed_shares(options))


def _embed_shares(options: argparse.Namespace) -> int:
    from functools import partial

    from ..unclip_core.train.run import embed

    check_ray(options)
    device, write = options.device, None
    if options.ray:
        from .mapping.engine import Pool
        from .mapping.shares import write_shards

        workers = read_workers(options.ray_workers, "--ray-workers")
        pool = Pool(workers, options.gpus_per_worker, options.address)
        device = "cpu"  # of this process, which computes next to nothing
        write = partial(write_shards, pool, options.data, options.model, options.batch)
    return embed(options.data, options.output, options.model, device, options.batch, options.workers, write)
