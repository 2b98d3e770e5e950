"""Addresses and credentials of servers: sent where they belong, printed nowhere, followed nowhere else."""

import base64

import pytest
from fake_comfy import FakeComfy

from unclip.cli.queue import queue_file
from unclip.cli.remote.address import HEADER_VARIABLE, read_address, read_headers, without_credentials
from unclip.cli.remote.batch import run_batch
from unclip.cli.remote.rows import Batch
from unclip.cli.remote.server import ComfyServer

WORKFLOW = {"1": {"class_type": "Thing", "inputs": {"seed": 0, "text": "a"}}}


@pytest.mark.parametrize(
    ("text", "url", "signed"),
    [
        ("http://127.0.0.1:8188", "http://127.0.0.1:8188", None),
        ("host:8188/", "http://host:8188", None),
        ("https://host/comfy/", "https://host/comfy", None),
        ("http://[::1]:8188/#workflow", "http://[::1]:8188", None),
        ("http://me:secret@host:8188", "http://host:8188", b"me:secret"),
        ("me:secret@host:8188/x", "http://host:8188/x", b"me:secret"),
        ("http://me:s%40c%2Fr%3At@host", "http://host", b"me:s@c/r:t"),
        ("http://token@host", "http://host", b"token:"),
        ("http://mé:sécret@host", "http://host", "mé:sécret".encode()),
    ],
)
def test_user_and_password_become_a_header(text, url, signed):
    address = read_address(text)
    assert address.url == url
    wanted = {} if signed is None else {"Authorization": "Basic " + base64.b64encode(signed).decode()}
    assert dict(address.headers) == wanted and "secret" not in repr(address)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://me:secret@host", "http://me:secret@", "http://me:secret@host:99999", "http://me:12/secret@host",
        "http://me:secret@ho st", "http://me:secret@host:x", "http://me:secret@[::1", "me:secret@", "http://me:#secret@host",
        "http://me:secret@host/?token=secret", "http://me:secret@" + "x" * 80 + ".example", "http://me:secret@host:0",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_its_password(text):
    with pytest.raises(ValueError, match="--server") as caught:
        ComfyServer(text)
    assert "secret" not in str(caught.value)


def test_headers_are_read_a_line_each():
    text = "authorization: Bearer a:b=\n\n CF-Access-Client-Id : x \n"
    assert read_headers(text) == {"Authorization": "Bearer a:b=", "CF-Access-Client-Id": "x"}
    assert read_headers("") == {}
    own = read_address("http://me:pw@host", read_headers("authorization: Bearer x")).headers
    assert own == {"Authorization": "Basic " + base64.b64encode(b"me:pw").decode()}


@pytest.mark.parametrize("text", ["Bearer secret", "Au thorization: secret", ": secret", "X:", "X: a\x00secret"])
def test_what_is_no_header_is_refused_without_its_value(text):
    with pytest.raises(ValueError, match=f"{HEADER_VARIABLE}, line 1") as caught:
        read_headers(text)
    assert "secret" not in str(caught.value)


def test_credentials_are_left_out_of_any_text():
    for text in ("http://a:b@h:1/x", "a:b@h:1/x", "http://a:b@c@h:1/x"):
        assert without_credentials(text).endswith("h:1/x") and "b" not in without_credentials(text)
    assert without_credentials("http://h:1") == "http://h:1"


def run(server, folder, address=None, count=2, **headers):
    batch = Batch(WORKFLOW, count=count)
    return run_batch(batch, [ComfyServer(address or server.url, headers=headers)], folder)


def sent(server):
    return {headers.get("Authorization") for _, _, headers in server.requests}


def test_every_request_carries_the_credentials_and_no_file_holds_them(tmp_path, caplog):
    with FakeComfy() as comfy:
        assert run(comfy, tmp_path, comfy.url.replace("http://", "http://me:secret@")).exit_code == 0
        assert sent(comfy) == {"Basic " + base64.b64encode(b"me:secret").decode()}
        assert b"secret" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert f'"server": "{comfy.url}"' in (tmp_path / "journal.jsonl").read_text()
    assert "secret" not in caplog.text


def test_a_header_of_the_environment_goes_to_every_server(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(HEADER_VARIABLE, "Authorization: Bearer secret")
    (tmp_path / "w.json").write_text('{"1": {"class_type": "Thing", "inputs": {}}}')
    with FakeComfy() as comfy, FakeComfy() as other:
        code = queue_file(tmp_path / "w.json", [comfy.url, other.url], output=tmp_path / "out", as_json=True)
        assert code == 0 and sent(comfy) | sent(other) == {"Bearer secret"}
    monkeypatch.setenv(HEADER_VARIABLE, "secret")
    assert queue_file(tmp_path / "w.json", ["http://127.0.0.1:1"], output=tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err and HEADER_VARIABLE in said.err


def test_every_prompt_has_the_client_id_of_its_run(tmp_path):
    with FakeComfy() as comfy:
        run(comfy, tmp_path / "a", count=3)
        run(comfy, tmp_path / "b", count=3)
        assert len(comfy.clients) == 6 and all(comfy.clients) and len(set(comfy.clients)) == 2


def test_a_journal_with_a_password_in_it_is_taken_up(tmp_path):
    """Earlier versions wrote the address as it was typed."""
    with FakeComfy(seconds=0.05) as comfy:
        run(comfy, tmp_path)
        journal = tmp_path / "journal.jsonl"
        lines = [line for line in journal.read_text().splitlines() if '"done"' not in line]
        journal.write_text("\n".join(lines).replace("http://", "http://me:secret@") + "\n")
        assert run(comfy, tmp_path).exit_code == 0
        assert len(comfy.ran) == 2  # the history was asked, nothing was queued again
