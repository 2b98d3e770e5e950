"""`unclip convert` and `unclip download`: weights."""

import argparse

from ..unclip_core.weights.choices import DTYPE_NAMES
from .exits import run_and_report
from .parser import Commands

DOWNLOADS = ["karlo", "karlo-variations", "kandinsky-2-2", "kandinsky-2-2-inpaint", "kandinsky-2-2-controlnet-depth"]
DOWNLOADS += ["kandinsky-2-2-prior", "eclipse-karlo", "eclipse-kandinsky-2-2"]
"""The names of all families' public weights; written down, so that showing help imports no family."""


def add_convert(commands: Commands) -> None:
    """`unclip convert`: Karlo as safetensors, and our own models in eight bits."""
    convert = commands.add_parser(
        "convert",
        help="convert a model's weights",
        description="Write Karlo as a folder of safetensors, from kakaobrain's own files or a diffusers folder; or "
        "with --int8 a model of this project's own format with matrices in eight bits.",
    )
    convert.add_argument("source", metavar="SRC", help="the folder with the files")
    convert.add_argument("target", metavar="DST", help="a new folder, for example ComfyUI/models/unclip/karlo")
    convert.add_argument("--dtype", choices=DTYPE_NAMES, default="fp32", help="(default: %(default)s)")
    convert.add_argument(
        "--int8",
        nargs="+",
        choices=["clip", "prior", "decoder", "upsampler"],
        default=[],
        metavar="PART",
        help="parts of an own model (clip, prior, decoder, upsampler) whose matrices get eight bits and a scale a row",
    )
    convert.set_defaults(call=_convert)


def _convert(options: argparse.Namespace) -> int:
    from ..unclip_core.families.convert import convert_and_report

    return run_and_report(lambda: convert_and_report(options.source, options.target, options.dtype, options.int8))


def add_download(commands: Commands) -> None:
    """`unclip download`: public weights."""
    download = commands.add_parser(
        "download",
        help="fetch public weights",
        description="Fetch public weights from the Hugging Face hub, and print their licence; Kandinsky's decoders "
        "come with their prior. A download that was stopped goes on where it was.",
    )
    download.add_argument("name", choices=DOWNLOADS)
    download.add_argument("--to", metavar="DIR", help="the models folder (default: ComfyUI's models/unclip)")
    download.add_argument(
        "--revision",
        metavar="REV",
        help="a branch, tag or commit of the model's repository (default: its main branch); a prior that is fetched "
        "beside a decoder comes from its own main branch",
    )
    download.set_defaults(call=_download)


def _download(options: argparse.Namespace) -> int:
    from ..unclip_core.families.download import download

    return run_and_report(lambda: download(options.name, options.to, options.revision))
