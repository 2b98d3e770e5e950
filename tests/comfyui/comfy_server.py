"""A real ComfyUI: where it is installed, its server with the pack in it, and a client of its HTTP and WebSocket API."""

import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
PLUGIN = "comfyui-unclip"  # with a hyphen, as people clone it: the pack must not rely on its folder's name
NEEDS = ["aiohttp", "comfyui_frontend_package", "einops", "open_clip", "safetensors", "torch", "torchaudio", "torchsde"]
START_LIMIT = 600  # a machine that is busy otherwise takes minutes
RUN_LIMIT = 600
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
BINARY_PREVIEW, BINARY_TEXT = 1, 3


class NoComfyUI(Exception):
    """There is no ComfyUI to test with; the message says what is missing and how to name it."""


def find_comfyui():
    """(folder of ComfyUI, Python that runs it), of $COMFYUI_PATH and $COMFYUI_PYTHON or where they are by habit."""
    folder = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    if not (folder / "main.py").is_file():
        raise NoComfyUI(f"there is no ComfyUI in '{folder}'; set COMFYUI_PATH to its folder")
    places = [folder / env / "bin" / "python" for env in (".venv", "venv")]
    found = next((str(place) for place in places if place.exists()), sys.executable)
    python = os.environ.get("COMFYUI_PYTHON") or found
    script = f"import importlib.util as u; print(*[n for n in {NEEDS} if u.find_spec(n) is None])"
    try:
        answer = subprocess.run(
            [python, "-c", script], capture_output=True, text=True, check=True, env=environment(), cwd=folder
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoComfyUI(f"'{python}' does not run ({error}); set COMFYUI_PYTHON to ComfyUI's Python") from error
    if missing := answer.stdout.split():
        raise NoComfyUI(f"'{python}' lacks {', '.join(missing)}; set COMFYUI_PYTHON to a Python that has them")
    return folder, python


def environment():
    """Ours without what would let the server find packages, or a proxy, that its users' servers do not have."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UNCLIP_MODELS")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | {"DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Run:
    """What the WebSocket told of one prompt."""

    prompt_id: str
    ending: str = ""
    details: dict = field(default_factory=dict)
    executed: list = field(default_factory=list)
    cached: set = field(default_factory=set)
    outputs: dict = field(default_factory=dict)
    texts: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)
    previews: dict = field(default_factory=dict)


class Watch:
    """A client with a WebSocket: queues prompts and follows them."""

    def __init__(self, server):
        import websocket

        self.server = server
        self.client_id = uuid.uuid4().hex
        self.socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}/ws?clientId={self.client_id}", timeout=RUN_LIMIT, http_no_proxy=["*"]
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def queue(self, prompt, **extra_data):
        """The new run's `prompt_id`."""
        body = {"prompt": prompt, "client_id": self.client_id, "extra_data": extra_data}
        status, answer = self.server.post("/prompt", body)
        assert status == 200, f"POST /prompt answered {status}: {json.dumps(answer, indent=1)}"
        assert not answer["node_errors"], answer
        return answer["prompt_id"]

    def events(self, prompt_id):
        """(type, data) of each of the prompt's events up to its end.

        A text on a node is ("text", {node, text}), a live image ("preview", {image}).
        """
        limit = time.monotonic() + RUN_LIMIT
        while time.monotonic() < limit:
            message = self.socket.recv()
            if isinstance(message, bytes):
                kind, length = struct.unpack(">II", message[:8])
                if kind == BINARY_TEXT:
                    yield "text", {"node": message[8 : 8 + length].decode(), "text": message[8 + length :].decode()}
                if kind == BINARY_PREVIEW:
                    yield "preview", {"image": Image.open(io.BytesIO(message[8:]))}
                continue
            event = json.loads(message)
            if event["data"].get("prompt_id") == prompt_id:
                yield event["type"], event["data"]
                if event["type"] in ENDINGS:
                    return
        raise TimeoutError(f"The prompt did not end within {RUN_LIMIT} s.")

    def follow(self, prompt_id, events=None):
        """Wait for the prompt's end."""
        run = Run(prompt_id)
        for kind, data in events or self.events(prompt_id):
            if kind == "executing" and data["node"] is not None:
                run.executed.append(data["node"])
            elif kind == "progress":
                run.steps.setdefault(data["node"], []).append((data["value"], data["max"]))
            elif kind == "preview":
                run.previews.setdefault(run.executed[-1], []).append(data["image"])
            elif kind == "execution_cached":
                run.cached.update(data["nodes"])
            elif kind == "executed":
                run.outputs[data["node"]] = data["output"]
            elif kind == "text":
                run.texts[data["node"]] = data["text"]
            elif kind in ENDINGS:
                run.ending, run.details = kind, data
        return run


class Server:
    """ComfyUI's server on a free port, with a new base folder in which the pack is the only custom node."""

    def __init__(self, folder, python, base, arguments=("--cpu",)):
        self.base, self._folder, self._python, self._arguments = base, folder, python, arguments
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = base / "server.log"
        (base / "custom_nodes").mkdir()
        (base / "custom_nodes" / PLUGIN).symlink_to(ROOT, target_is_directory=True)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.start()

    def start(self):
        """Start it, or start it again after `stop` or `kill`."""
        command = [
            self._python,
            "main.py",
            *self._arguments,
            "--port",
            str(self.port),
            "--base-directory",
            str(self.base),
        ]
        command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes", "--disable-auto-launch"]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self._folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self):
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()

    def wait_until_ready(self):
        """Return once it answers; RuntimeError if it does not come up."""
        limit = time.monotonic() + START_LIMIT
        while time.monotonic() < limit and self.process.poll() is None:
            try:
                return self.get("/system_stats")
            except OSError:
                time.sleep(0.5)
        state = "is not ready" if self.process.poll() is None else f"ended with {self.process.returncode}"
        raise RuntimeError(f"ComfyUI {state}, {START_LIMIT} s at most after it was started; its log tells more.")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self, last=None):
        """What the server printed, or the last so many characters of it."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", self.log_file.read_text(encoding="utf-8", errors="replace"))
        return text[-last:] if last else text

    def open(self, path, data=None, content_type="application/json"):
        """(status, body) of a GET, or of a POST if there is `data`."""
        headers = {} if data is None else {"Content-Type": content_type}
        try:
            with self._opener.open(urllib.request.Request(self.url + path, data, headers), timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path):
        status, body = self.open(path)
        assert status == 200, f"GET {path} answered {status}: {body[:500]!r}"
        return json.loads(body)

    def post(self, path, body):
        """(status, answer) of a POST of JSON; NaN is written as `NaN`, which ComfyUI reads."""
        status, answer = self.open(path, json.dumps(body).encode())
        return status, json.loads(answer) if answer else None

    def watch(self):
        return Watch(self)

    def run(self, prompt, **extra_data):
        """Queue a prompt and follow it to its end."""
        with self.watch() as watch:
            return watch.follow(watch.queue(prompt, **extra_data))

    def history(self, prompt_id):
        """The prompt's row; it can come later than the event of its end."""
        for _ in range(100):
            if row := self.get(f"/history/{prompt_id}").get(prompt_id):
                return row
            time.sleep(0.1)
        raise AssertionError(f"Prompt {prompt_id} ended but is not in the history.")

    def images(self, prompt_id):
        """The images that a prompt saved, through /view."""
        by_number = lambda item: [int(number) for number in item[0].split(":")]  # noqa: E731  # "4:7": in a subgraph
        outputs = sorted(self.history(prompt_id)["outputs"].items(), key=by_number)  # they run in any order
        return [self.view(entry) for _, output in outputs for entry in output.get("images", [])]

    def view(self, entry):
        status, body = self.open("/view?" + urllib.parse.urlencode(entry))
        assert status == 200 and body.startswith(b"\x89PNG"), f"/view of {entry} answered {status}: {body[:80]!r}"
        return Image.open(io.BytesIO(body))

    def upload(self, name, image):
        """Put a PIL image among ComfyUI's inputs through /upload/image."""
        data = io.BytesIO()
        image.save(data, "PNG")
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        body = head.encode() + b"Content-Type: image/png\r\n\r\n" + data.getvalue() + f"\r\n--{boundary}--\r\n".encode()
        status, answer = self.open("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        assert status == 200, answer
        assert json.loads(answer) == {"name": name, "subfolder": "", "type": "input"}
