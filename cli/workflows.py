"""`unclip run` and `unclip queue`: workflows."""

import argparse

from .exits import Commands


def add_run(commands: Commands) -> None:
    """`unclip run`: a workflow in this process."""
    run = commands.add_parser(
        "run",
        help="run an API-format workflow",
        description="Run an API-format workflow and save its images. "
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
    run.add_argument("--output", default="output", metavar="DIR", help="for images (default: %(default)s)")
    run.add_argument("--json", action="store_true", help="print the report as JSON")
    run.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> int:
    from .headless import run_file

    return run_file(options.workflow, options.settings, options.output, options.json)


def add_queue(commands: Commands) -> None:
    """`unclip queue`: a workflow many times on servers."""
    queue = commands.add_parser(
        "queue",
        help="queue a workflow many times on ComfyUI servers",
        description="Queue an API-format workflow many times over one or several ComfyUI servers and download what it "
        "saves. A journal in the output folder lets the same command go on after an interrupt or a crash. "
        "Exit code: 0 if every row has its files, 1 if not, 2 if the input is wrong, 130 if interrupted.",
    )
    queue.add_argument("workflow", metavar="WORKFLOW.json", help="in ComfyUI: File > Export (API)")
    queue.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="URL",
        dest="servers",
        help="a ComfyUI server, such as http://127.0.0.1:8188 (may be given several times)",
    )
    queue.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        dest="settings",
        help="set an input in every row; NODE is a node's id or title",
    )
    queue.add_argument("--csv", metavar="FILE", help="a row a line; the first line names the inputs (NODE.INPUT)")
    queue.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUES",
        help="every value in turn: 1..8, or a,b,c, or a JSON list; several make every combination",
    )
    queue.add_argument("--count", type=int, default=1, metavar="N", help="every row N times, with seeds counting up")
    queue.add_argument("--output", default="output", metavar="DIR", help="for files and journal (default: %(default)s)")
    queue.add_argument("--depth", type=int, default=2, metavar="N", help="prompts in a server's queue at once (2)")
    queue.add_argument(
        "--patience",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="how long to wait while no server answers (default: %(default)s)",
    )
    queue.add_argument("--json", action="store_true", help="print the report as JSON")
    queue.set_defaults(call=_queue)


def _queue(options: argparse.Namespace) -> int:
    from .remote import queue_file

    return queue_file(
        options.workflow,
        options.servers,
        settings=options.settings,
        vary=options.vary,
        table=options.csv,
        count=options.count,
        output=options.output,
        depth=options.depth,
        patience=options.patience,
        as_json=options.json,
    )
