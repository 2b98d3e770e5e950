"""Servers that join and leave while a batch runs, the results table, and what each server did."""

import json
import sys
import threading
import time

import pytest
from fake_comfy import FakeComfy, prompt_in

from unclip.__main__ import main
from unclip.cli.queue import queue_file
from unclip.cli.remote import crew, worker
from unclip.cli.remote.batch import run_batch
from unclip.cli.remote.journal import Result
from unclip.cli.remote.roster import Roster
from unclip.cli.remote.rows import Batch
from unclip.cli.remote.tally import Tally

WORKFLOW = {"1": {"class_type": "Thing", "inputs": {"seed": 0, "text": "a"}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Failures and changes are noticed at once, so that the tests need not wait."""
    monkeypatch.setattr(worker, "RETRY_WAIT", 0.02)
    monkeypatch.setattr(worker, "PROBE_WAIT", 0.05)
    monkeypatch.setattr(worker, "PROBE_MAX", 0.1)
    monkeypatch.setattr(crew, "ROSTER_EVERY", 0.05)


def go(count, file, folder, **more):
    roster = Roster([], file)
    return run_batch(Batch(WORKFLOW, count=count), roster(), folder, roster=roster, **more)


def seeds(folder):
    return sorted(prompt_in(path)["seed"] for path in folder.glob("row*.png"))


def when(condition, then):
    """A thread that does something once a condition holds."""

    def watch():
        end = time.monotonic() + 30
        while not condition() and time.monotonic() < end:
            time.sleep(0.005)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_server_that_joins_shares_the_work(tmp_path):
    file = tmp_path / "servers"
    with FakeComfy(seconds=0.03) as first, FakeComfy(seconds=0.03) as second:
        file.write_text(f"# ours\n{first.url}  # in the cellar\n\n")
        thread = when(lambda: len(first.ran) > 3, lambda: file.write_text(f"{first.url}\n{second.url}\n"))
        report = go(40, file, tmp_path / "out")
        thread.join()
        assert report.exit_code == 0 and seeds(tmp_path / "out") == list(range(40))
        assert len(second.ran) > 5 and len(first.ran) + len(second.ran) == 40
        assert {url: share.rows for url, share in report.servers.items()} == {
            first.url: len(first.ran), second.url: len(second.ran),
        }  # fmt: skip


def test_a_server_that_leaves_ends_what_it_has_and_gets_no_more(tmp_path, caplog):
    file, taken = tmp_path / "servers", []
    with FakeComfy(seconds=0.05) as first, FakeComfy(seconds=0.05) as second:
        file.write_text(f"{first.url}\n{second.url}\n")

        def leave():
            file.write_text(first.url)
            time.sleep(0.3)
            taken.append(len(second.posted))

        thread = when(lambda: len(second.ran) > 2, leave)
        report = go(40, file, tmp_path / "out")
        thread.join()
        assert report.exit_code == 0 and seeds(tmp_path / "out") == list(range(40))
        assert taken == [len(second.posted)] == [len(second.ran)] and len(second.ran) < 15
        assert len(first.ran) + len(second.ran) == 40, "nothing is done twice"
    assert f"{second.url} has left" in caplog.text and not report.unusable


def test_a_server_that_leaves_and_is_dead_gives_its_rows_back(tmp_path):
    file = tmp_path / "servers"
    with FakeComfy(seconds=0.03) as first, FakeComfy(seconds=0.2) as second:
        file.write_text(f"{first.url}\n{second.url}\n")

        def die():
            second.kill()
            file.write_text(first.url)

        thread = when(lambda: second.posted, die)
        report = go(20, file, tmp_path / "out")
        thread.join()
        assert report.exit_code == 0 and seeds(tmp_path / "out") == list(range(20))


def test_all_may_leave_and_others_come(tmp_path):
    file = tmp_path / "servers"
    with FakeComfy(seconds=0.02) as first, FakeComfy(seconds=0.02) as second:
        file.write_text(first.url)

        def change():
            file.write_text("# nobody\n")
            time.sleep(0.4)
            file.write_text(second.url)

        thread = when(lambda: len(first.ran) > 3, change)
        report = go(20, file, tmp_path / "out")
        thread.join()
        assert report.exit_code == 0 and seeds(tmp_path / "out") == list(range(20)) and second.ran


def test_one_that_left_may_come_back(tmp_path):
    file = tmp_path / "servers"
    with FakeComfy(seconds=0.02) as server:
        file.write_text(server.url)

        def change():
            file.write_text("")
            time.sleep(0.4)
            file.write_text(server.url)

        thread = when(lambda: len(server.ran) > 3, change)
        report = go(20, file, tmp_path / "out")
        thread.join()
        assert report.exit_code == 0 and len(server.ran) == 20


def test_nobody_at_all_ends_after_the_patience(tmp_path):
    file = tmp_path / "servers"
    file.write_text("")
    report = go(2, file, tmp_path / "out", patience=0.3)
    assert report.exit_code == 1 and report.missing == [1, 2]


def test_a_file_that_is_spoilt_on_the_way_changes_nothing(tmp_path, caplog):
    file = tmp_path / "servers"
    with FakeComfy(seconds=0.03) as server:
        file.write_text(server.url)
        thread = when(lambda: len(server.ran) > 2, lambda: file.write_text("ftp://elsewhere"))
        report = go(20, file, tmp_path / "out")
        thread.join()
        assert report.exit_code == 0 and len(server.ran) == 20
    said = [record.message for record in caplog.records if "The servers stay as they are" in record.message]
    assert len(said) == 1 and "line 1" in said[0] and "no address" in said[0]


def test_the_roster_keeps_servers_whose_line_stays(tmp_path):
    file = tmp_path / "servers"
    file.write_text("a:1\nb:2 # so\n")
    roster = Roster(["c:3"], file)
    first = {server.url: server for server in roster()}
    assert list(first) == ["http://c:3", "http://a:1", "http://b:2"]
    file.write_text("user:pw@b:2\n#a:1\n")
    second = {server.url: server for server in roster()}
    assert second["http://c:3"] is first["http://c:3"] and second["http://b:2"] is not first["http://b:2"]
    assert list(second) == ["http://c:3", "http://b:2"]


# ---- the command: what it leaves and says ----


def command(tmp_path, *arguments):
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    out = str(tmp_path / "out")
    return main(["queue", str(tmp_path / "workflow.json"), "--output", out, *arguments])


def judge(prompt):
    return ("error", "no star") if prompt["1"]["inputs"]["text"] == "star" else None


@pytest.mark.parametrize("parquet", [True, False])
def test_the_results_table_holds_every_row_of_all_runs(tmp_path, monkeypatch, capsys, parquet):
    if parquet:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
    else:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "rows.jsonl").write_text('{"name": "one", "1.text": "circle"}\n{"name": "two", "1.text": "star"}\n')
    with FakeComfy() as server:
        server.judge = judge
        (tmp_path / "servers").write_text(f"{server.url}\n")
        arguments = ["--table", str(tmp_path / "rows.jsonl"), "--servers-file", str(tmp_path / "servers"), "--json"]
        for code in (1, 0):
            assert command(tmp_path, *arguments) == code
            server.judge = lambda prompt: None
            out, err = capsys.readouterr()
            report = json.loads(out)
            assert f"{server.url}: " in err and report["servers"][server.url]["rows"] == 1
            path = tmp_path / "out" / ("results.parquet" if parquet else "results.jsonl")
            assert report["table"] == str(path)
            if parquet:
                rows = pandas.read_parquet(path).to_dict("records")
            else:
                rows = [json.loads(line) for line in path.read_text().splitlines()]
            assert [row["row"] for row in rows] == [1, 2] and [row["name"] for row in rows] == ["one", "two"]
            assert [row["error"] for row in rows] == ["", "node 1 (Thing): no star" if code else ""]
            assert list(rows[0]["files"]) == ["row00001-one-1.png"] and list(rows[0]["warnings"]) == ["Mind this."]
            assert rows[0]["server"] == server.url and 0 < rows[0]["seconds"] < 30
            assert json.loads(rows[1]["values"]) == {"1.text": "star"}
        assert len(server.ran) == 2, "what was done in the first run stands in the second's table"


def test_csv_is_a_table_still_and_no_server_is_refused(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("1.text\ncircle\n")
    with FakeComfy() as server:
        assert command(tmp_path, "--csv", str(tmp_path / "rows.csv"), "--server", server.url) == 0
    assert command(tmp_path) == 2
    assert "There must be a server" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "said"), [("a b:1\n", "line 1: "), (None, "servers")])
def test_a_servers_file_that_is_wrong_from_the_start_is_refused(tmp_path, capsys, text, said):
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    if text:
        (tmp_path / "servers").write_text(text)
    assert queue_file(tmp_path / "workflow.json", [], servers_file=tmp_path / "servers", output=tmp_path / "o") == 2
    assert said in capsys.readouterr().err


def test_rates_are_those_between_first_and_last_result():
    now = iter([10.0, 12.0, 14.0, 20.0])
    tally = Tally(clock=lambda: next(now))
    for row, error in ((1, ""), (2, "no"), (3, "")):
        tally.add(Result(row, server="http://a:1", error=error))
    tally.add(Result(4, server="http://b:2"))
    assert str(tally.shares["http://a:1"]) == "2 rows, 1 failed, 0.50 rows/s"
    assert str(tally.shares["http://b:2"]) == "1 row" and tally.short() == "failed=1, a:1 0.50/s, b:2 0.00/s"
