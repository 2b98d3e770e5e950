"""`unclip download`: which files are fetched, where to, and how it goes on, from a hub on this machine."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from unclip.cli.weights import DOWNLOADS
from unclip.unclip_core.families import download as module
from unclip.unclip_core.families.download import download, needed_files, sources
from unclip.unclip_core.families.download_record import NAME, Record
from unclip.unclip_core.weights.files import CheckpointError

HUB = [
    ".gitattributes",
    "README.md",
    "model_index.json",
    "assets/a.png",
    "prior/config.json",
    "prior/diffusion_pytorch_model.bin",
    "prior/diffusion_pytorch_model.safetensors",
    "prior/diffusion_pytorch_model.fp16.safetensors",
    "prior/diffusion_pytorch_model.fp16.bin",
    "decoder/config.json",
    "decoder/diffusion_pytorch_model.bin",
    "decoder/diffusion_pytorch_model.fp16.bin",
    "decoder_scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "super_res_first/config.json",
    "super_res_first/diffusion_pytorch_model.safetensors.index.json",
    "super_res_first/diffusion_pytorch_model-00001-of-00002.safetensors",
    "super_res_first/diffusion_pytorch_model-00002-of-00002.safetensors",
]
NEEDED = {
    "README.md",
    "model_index.json",
    "prior/config.json",
    "prior/diffusion_pytorch_model.safetensors",
    "decoder/config.json",
    "decoder/diffusion_pytorch_model.bin",
    "decoder_scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "super_res_first/config.json",
    "super_res_first/diffusion_pytorch_model.safetensors.index.json",
    "super_res_first/diffusion_pytorch_model-00001-of-00002.safetensors",
    "super_res_first/diffusion_pytorch_model-00002-of-00002.safetensors",
}


def test_only_one_form_of_each_components_weights_is_needed():
    assert set(needed_files(HUB)) == NEEDED
    assert len(needed_files(HUB)) == len(NEEDED)


class Hub:
    """A hub on this machine: repositories of files, a line that breaks, and what was asked for."""

    def __init__(self, files):
        self.files, self.asked = files, []
        self.branches = {"main": files}  # by revision
        self.tells_versions = True
        self.breaks: dict[str, int] = {}  # file -> bytes that it gives before the line breaks for good
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _handler(hub):
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                if self.path.startswith("/api/models/"):
                    files = hub.branches[self.path.split("/tree/")[1].split("?")[0]]
                    rows = [
                        {"type": "file", "path": name, "size": len(data), "oid": name} for name, data in files.items()
                    ]
                    return self.send(200, json.dumps(rows).encode(), {"Content-Type": "application/json"})
                return self.answer(body=True)

            def answer(self, body):
                revision, name = self.path.split("/resolve/")[1].split("/", 1)
                data, start = hub.branches[revision][name], 0
                if body:
                    said = self.headers.get("Range")
                    hub.asked.append((name, said))
                    start = int(said.removeprefix("bytes=").rstrip("-")) if said else 0
                head = {"X-Repo-Commit": "0" * 40}
                if hub.tells_versions:
                    head["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
                whole, data = len(data), data[start:]
                if start:
                    head["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
                if body and name in hub.breaks:
                    kept, hub.breaks[name] = hub.breaks[name], 0
                    return self.send(206 if start else 200, data[:kept], head, len(data)) if kept else self.send(503)
                return self.send(206 if start else 200, data if body else b"", head, len(data))

            def send(self, status, data=b"", head=None, length=None):
                self.send_response(status)
                for key, value in (head or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data) if length is None else length))
                self.end_headers()
                self.wfile.write(data)

        return Handler


@pytest.fixture
def hub():
    """A hub with a repository of small files of different contents."""
    hub = Hub({name: name.encode() * 50 for name in HUB})
    yield hub
    hub.close()


def files_of(folder):
    """Contents by path, without the command's own record."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != NAME]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def another(files):
    """Files of the same names and sizes with other contents."""
    return {name: data[::-1] for name, data in files.items()}


@pytest.mark.parametrize(("name", "repository"), [(name, source.repository) for name, source in sources().items()])
def test_it_fetches_into_a_folder_of_the_models_name(hub, tmp_path, capsys, name, repository):
    folder = download(name, str(tmp_path), hub=hub.url)
    assert folder == tmp_path / repository.split("/")[1]
    assert files_of(folder) == {name: hub.files[name] for name in NEEDED}
    said = capsys.readouterr().out
    assert sources()[name].licence in said
    assert all((tmp_path / sources()[other].repository.split("/")[1]).is_dir() for other in sources()[name].needs)
    assert f"[{len(NEEDED)}/{len(NEEDED)}]" in said and f"choose '{folder.name}'" in said


def test_the_command_knows_every_name():
    assert sorted(DOWNLOADS) == sorted(sources())


def test_what_broke_off_is_gone_on_with_where_it_broke(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)  # bytes that are written at once
    broken = "decoder/diffusion_pytorch_model.bin"
    hub.breaks[broken] = 700
    with pytest.raises(CheckpointError, match="could not be fetched .*503.*What has arrived stays: run the command"):
        download("karlo", str(tmp_path), hub=hub.url)
    folder = tmp_path / "karlo-v1-alpha"
    assert not (folder / broken).exists()
    (part,) = folder.rglob("*.part")
    assert part.read_bytes() == hub.files[broken][:700]

    hub.breaks.clear()
    arrived, hub.asked = set(files_of(folder)), []
    download("karlo", str(tmp_path), hub=hub.url)
    assert files_of(folder) == {name: hub.files[name] for name in NEEDED}
    assert hub.asked[0] == (broken, "bytes=700-")
    assert not arrived & {name for name, _ in hub.asked}  # nothing twice

    hub.asked = []
    download("karlo", str(tmp_path), hub=hub.url)
    assert hub.asked == []


def test_a_part_of_another_version_is_not_gone_on_with(hub, tmp_path):
    folder = tmp_path / "karlo-v1-alpha"
    (folder / "prior").mkdir(parents=True)
    (folder / "prior" / "config.json.another.part").write_bytes(b"something else")
    download("karlo", str(tmp_path), hub=hub.url)
    assert (folder / "prior" / "config.json").read_bytes() == hub.files["prior/config.json"]


@pytest.mark.parametrize("recorded", [True, False])
def test_files_of_another_revision_are_not_taken_for_its_own(hub, tmp_path, recorded):
    hub.branches["other"] = another(hub.files)
    folder = download("karlo", str(tmp_path), hub=hub.url)
    if not recorded:  # a folder from before there was a record: for the default revision its sizes serve
        (folder / NAME).unlink()
        hub.asked = []
        download("karlo", str(tmp_path), hub=hub.url)
        assert hub.asked == []
    for revision in ("other", None, "other"):
        download("karlo", str(tmp_path), revision, hub.url)
        wanted = hub.branches[revision or "main"]
        assert files_of(folder) == {name: wanted[name] for name in NEEDED}
        hub.asked = []
        download("karlo", str(tmp_path), revision, hub.url)
        assert hub.asked == []


def test_a_branch_that_has_moved_is_fetched_again(hub, tmp_path):
    folder = download("karlo", str(tmp_path), hub=hub.url)
    moved = "prior/diffusion_pytorch_model.safetensors"
    hub.files[moved], hub.asked = hub.files[moved][::-1], []
    download("karlo", str(tmp_path), hub=hub.url)
    assert hub.asked == [(moved, None)] and (folder / moved).read_bytes() == hub.files[moved]


def test_a_part_of_another_revision_is_not_gone_on_with(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    hub.branches["other"] = another(hub.files)
    broken = "decoder/diffusion_pytorch_model.bin"
    hub.breaks[broken] = 700
    with pytest.raises(CheckpointError, match="could not be fetched"):
        download("karlo", str(tmp_path), hub=hub.url)
    hub.breaks.clear()
    hub.asked = []
    folder = download("karlo", str(tmp_path), "other", hub.url)
    assert (broken, None) in hub.asked and (folder / broken).read_bytes() == hub.branches["other"][broken]
    hub.asked = []
    download("karlo", str(tmp_path), hub=hub.url)  # and that of the first is still there
    assert (broken, "bytes=700-") in hub.asked and (folder / broken).read_bytes() == hub.files[broken]


def test_a_file_that_was_being_replaced_is_fetched_again(hub, tmp_path, monkeypatch):
    folder = download("karlo", str(tmp_path), hub=hub.url)
    file = "prior/config.json"
    (folder / "new").write_bytes(another(hub.files)[file])
    noted = Record._note
    monkeypatch.setattr(
        Record, "_note", lambda self, name, version: noted(self, name, version) if not version else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        Record.read(folder).replace(file, folder / "new", "x")
    monkeypatch.undo()
    hub.asked = []
    download("karlo", str(tmp_path), hub=hub.url)
    assert hub.asked == [(file, None)] and (folder / file).read_bytes() == hub.files[file]


@pytest.mark.parametrize("recorded", [True, False])
def test_weights_that_a_revision_lacks_are_refused(hub, tmp_path, recorded):
    """The reader would take safetensors before the .bin that the revision has."""
    lacked = "prior/diffusion_pytorch_model.safetensors"
    hub.branches["other"] = {
        name: data for name, data in another(hub.files).items() if "prior" not in name or "safe" not in name
    }
    folder = download("karlo", str(tmp_path), hub=hub.url)
    if not recorded:
        (folder / NAME).unlink()
    hub.asked = []
    with pytest.raises(CheckpointError, match=f"holds {lacked}, which this revision of the model lacks"):
        download("karlo", str(tmp_path), "other", hub.url)
    assert hub.asked == [] and files_of(folder) == {name: hub.files[name] for name in NEEDED}
    (folder / lacked).unlink()
    download("karlo", str(tmp_path), "other", hub.url)
    assert files_of(folder).keys() == NEEDED - {lacked} | {"prior/diffusion_pytorch_model.bin"}
    with pytest.raises(CheckpointError, match="no version of"):
        hub.tells_versions = False
        download("karlo", str(tmp_path), "other", hub.url)


@pytest.mark.parametrize("text", ["{", "[]", '{"prior/config.json": 1}', "\xff"])
def test_a_damaged_record_is_refused(hub, tmp_path, text):
    folder = download("karlo", str(tmp_path), hub=hub.url)
    (folder / NAME).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"unclip-download\.json.*nobody knows of which revision"):
        download("karlo", str(tmp_path), hub=hub.url)


def test_a_hub_that_does_not_answer_is_said_in_a_sentence(hub, tmp_path, monkeypatch):
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # between its tries
    hub.close()
    with pytest.raises(CheckpointError, match=r"could not be fetched \(.*refused.*run the command again"):
        download("karlo", str(tmp_path), hub=hub.url)
    assert list(tmp_path.iterdir()) == []


def test_unknown_models_are_refused(hub, tmp_path):
    with pytest.raises(CheckpointError, match="karlo, karlo-variations"):
        download("dall-e", str(tmp_path), hub=hub.url)
    assert hub.asked == []


def test_comfyuis_folder_is_found_around_the_package(monkeypatch, tmp_path):
    package = tmp_path / "ComfyUI" / "custom_nodes" / "unclip" / "unclip_core" / "checkpoints" / "download.py"
    monkeypatch.setattr(module, "__file__", str(package))
    with pytest.raises(CheckpointError, match="--to"):
        module.comfyui_models()
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    assert module.comfyui_models() == tmp_path / "ComfyUI" / "models" / "unclip"


def test_nothing_but_the_command_fetches():
    """No node may go online by itself: only the command line and the module itself name it."""
    from pathlib import Path

    root = Path(module.__file__).parents[2]
    patterns = ("*.py", "cli/**/*.py", "nodes/**/*.py", "unclip_core/**/*.py")
    sources = [path for pattern in patterns for path in root.glob(pattern)]
    users = {
        path.relative_to(root).as_posix()
        for path in sources
        if "huggingface_hub import" in (text := path.read_text(encoding="utf-8")) or "families.download import" in text
    }
    assert users == {"cli/weights.py", "unclip_core/families/download.py"}
