"""`unclip queue`: a workflow file and what to vary in; a progress bar, downloaded files and a report out."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..unclip_core.output import say
from .exits import run_and_report
from .headless.prompt import split_override
from .headless.workflow_file import read_workflow
from .parser import Commands
from .remote.address import HEADER_VARIABLE, read_headers
from .remote.batch import DEPTH, PATIENCE, BatchReport, run_batch
from .remote.journal import Result
from .remote.roster import Roster
from .remote.rows import Batch, Row, read_varied
from .remote.server import ComfyServer
from .remote.tables import read_table
from .remote.tally import Tally

_ERRORS_SHOWN = 20


def add_queue(commands: Commands) -> None:
    """`unclip queue`: a workflow many times on servers."""
    queue = commands.add_parser(
        "queue",
        help="queue a workflow many times on ComfyUI servers",
        description="Queue an API-format workflow many times over one or several ComfyUI servers and download what it "
        "saves. A journal in the output folder lets the same command go on after an interrupt or a crash. "
        f"The environment variable {HEADER_VARIABLE} holds headers for the servers, such as 'Authorization: Bearer …'. "
        "Exit code: 0 if every row has its files, 1 if not, 2 if the input is wrong, 130 if interrupted.",
    )
    queue.add_argument("workflow", metavar="WORKFLOW.json", help="in ComfyUI: File > Export (API)")
    queue.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="URL",
        dest="servers",
        help="a ComfyUI server, such as http://127.0.0.1:8188 or https://user:password@host (may be given again)",
    )
    queue.add_argument(
        "--servers-file",
        metavar="FILE",
        help="a server a line (# begins a comment); it is read again while the batch runs: servers join and leave",
    )
    queue.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        dest="settings",
        help="set an input in every row; NODE is a node's id or title",
    )
    queue.add_argument(
        "--table",
        "--csv",
        metavar="FILE",
        dest="table",
        help="rows, whose columns are inputs (NODE.INPUT): .csv, .jsonl (an object a line) or .parquet",
    )
    queue.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUES",
        help="every value in turn: 1..8, or a,b,c, or a JSON list; several make every combination",
    )
    queue.add_argument("--count", type=int, default=1, metavar="N", help="every row N times, with seeds counting up")
    queue.add_argument(
        "--output", default="output", metavar="DIR", help="for files, journal and results (default: %(default)s)"
    )
    queue.add_argument(
        "--depth", type=int, default=DEPTH, metavar="N", help="prompts in a server's queue at once (%(default)s)"
    )
    queue.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="how long to wait while no server answers (default: %(default)s)",
    )
    queue.add_argument("--json", action="store_true", help="print the report as JSON")
    queue.set_defaults(call=_queue)


def _queue(options: argparse.Namespace) -> int:
    call = partial(
        queue_file,
        options.workflow,
        options.servers,
        settings=options.settings,
        vary=options.vary,
        table=options.table,
        count=options.count,
        output=options.output,
        depth=options.depth,
        patience=options.patience,
        as_json=options.json,
        servers_file=options.servers_file,
    )
    return run_and_report(call)  # which obeys an interrupt while the rows are laid out, too


def queue_file(
    path: str | Path,
    servers: Sequence[str],
    *,
    settings: Sequence[str] = (),
    vary: Sequence[str] = (),
    table: str | Path | None = None,
    count: int = 1,
    output: str | Path = "output",
    depth: int = DEPTH,
    patience: float = PATIENCE,
    as_json: bool = False,
    servers_file: str | Path | None = None,
) -> int:
    """Queue a workflow file on servers, print what came of it, and return the exit code.

    The arguments are those of the command line; see `Batch` and `run_batch` for what they mean.

    Returns:
        0: every row has its files; 1: some have not; 2: the input is wrong, nothing was queued; 130: interrupted.
    """
    try:
        batch = Batch(
            read_workflow(Path(path)),
            settings=dict(split_override(setting) for setting in settings),
            table=read_table(Path(table)) if table else (),
            varied=_varied(vary),
            count=count,
        )
        headers = read_headers(os.environ.get(HEADER_VARIABLE, ""))
        roster = Roster(servers, Path(servers_file), headers) if servers_file else None
        clients = roster() if roster else [ComfyServer(url, headers=headers) for url in servers]
    except (ValueError, OSError) as error:
        return _complain("The batch was not run", error, 2)
    try:
        report = _run(batch, clients, Path(output), depth, patience, roster)
    except ValueError as error:
        return _complain("The batch was not run", error, 2)
    except OSError as error:
        return _complain("The batch stopped", error, 1)
    rows = {row.number: row for row in batch.rows}
    say(summary(report, rows, Path(output)), to_stderr=True)
    if as_json:
        say(json.dumps(report.as_dict(), indent=2))
    return report.exit_code


def _complain(what: str, error: Exception, exit_code: int) -> int:
    say(f"{what}: {error}", to_stderr=True)
    return exit_code


def _varied(vary: Sequence[str]) -> dict[str, list[Any]]:
    pairs = [read_varied(text) for text in vary]
    if len(dict(pairs)) < len(pairs):
        raise ValueError("An input is given to --vary twice: put all of its values into one.")
    return dict(pairs)


def _run(
    batch: Batch,
    servers: Sequence[ComfyServer],
    output: Path,
    depth: int,
    patience: float,
    roster: Callable[[], Sequence[ComfyServer]] | None,
) -> BatchReport:
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    tally = Tally()

    def count(result: Result) -> None:
        tally.add(result)
        bar.set_postfix_str(tally.short(), refresh=False)
        bar.update()

    with tqdm(total=len(batch.rows), unit="row", disable=None) as bar, logging_redirect_tqdm():
        report = run_batch(batch, servers, output, depth=depth, patience=patience, on_result=count, roster=roster)
        bar.update(report.kept)
    return report


def summary(report: BatchReport, rows: Mapping[int, Row], output: Path) -> str:
    """How many rows are done, and each error."""
    done = report.kept + len(report.results) - len(report.failed)
    earlier = f", {report.kept} of them earlier" if report.kept else ""
    named = f", what came of each in {report.table.name}" if report.table else ""
    lines = [f"{done} of {report.rows} rows are done{earlier}; their files are in {output}{named}."]
    lines += [f"  {server}: {share}" for server, share in sorted(report.servers.items())]
    shown = report.failed[:_ERRORS_SHOWN]
    lines += [f"  {rows[result.row]}: {result.error} ({result.server}){_kept(result)}" for result in shown]
    if len(report.failed) > len(shown):
        lines.append(f"  and {len(report.failed) - len(shown)} more failed")
    warned = [result for _, result in sorted(report.results.items()) if result.warnings]
    lines += [f"  row {result.row}, warning: {' '.join(result.warnings)}" for result in warned[:_ERRORS_SHOWN]]
    lines += [f"  {reason}" for reason in report.unusable.values()]
    if report.missing or report.failed:
        why = "it was interrupted" if report.interrupted else "no server could be used"
        left = f"{_rows(len(report.missing))} left because {why}. " if report.missing else ""
        lines.append(f"{left}The same command again goes on where this one ended.")
    return "\n".join(lines)


def _kept(result: Result) -> str:
    """The files of a row that has failed in part only."""
    return f"; it saved {', '.join(result.files[:_ERRORS_SHOWN])} nevertheless" if result.files else ""


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"
