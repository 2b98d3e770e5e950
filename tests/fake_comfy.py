"""A small ComfyUI over HTTP: /prompt, /queue, /history, /view; its images hold the prompts that made them.

It can be killed and started again on its port, as a server is that loses its memory, and be made to misbehave.
"""

import io
import json
import threading
import time
import urllib.parse
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image
from PIL.PngImagePlugin import PngInfo


@cache
def png(text):
    """A PNG of one pixel that holds a text."""
    info, file = PngInfo(), io.BytesIO()
    info.add_text("prompt", text)
    Image.new("RGB", (1, 1)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def prompt_in(path):
    """The inputs of node "1" that an image here was made with."""
    with Image.open(path) as image:
        return json.loads(image.text["prompt"])


class FakeComfy:
    """One server; prompts run one after the other, `seconds` each.

    Attributes:
        ran: the inputs of node "1" of every prompt that ran to its end, over all lives.
        posted: how often each prompt id was posted.
        requests: (method, path, headers) of every request.
        clients: the client_id of every prompt.
        deepest: the most prompts that ran or waited at once.
        judge: prompt -> None, ("refuse", sentence), ("partly", sentence) or ("error", sentence).
        renames: id -> the id that it gets here.
        odd: (handler, path) -> True if it has answered the request itself, in its own way.
    """

    def __init__(self, seconds=0.01, judge=lambda prompt: None):
        self.seconds, self.judge = seconds, judge
        self.ran, self.posted, self.deepest, self.cancelled, self.requests, self.clients = [], {}, 0, [], [], []
        self.renames = lambda prompt_id: prompt_id
        self.odd = lambda handler, path: False
        self.cut = 0  # so many downloads break off in the middle
        self._server = None
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Come up with nothing in memory, on the port of the life before."""
        self.waiting, self.running, self.history, self.files = [], [], {}, {}
        self._alive, self._changed = True, threading.Condition()
        handler = type("Handler", (Handler,), {"comfy": self})
        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", getattr(self, "port", 0)), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        threading.Thread(target=self._work, args=(self._changed,), daemon=True).start()

    def kill(self):
        """Go down at once: what ran, waited or had ended is forgotten."""
        if self._server is None:
            return
        with self._changed:
            self._alive = False
            self._changed.notify_all()
        self._server.shutdown()
        self._server.socket.close()  # threads of requests that hang are not waited for
        self._server = None

    def accept(self, body):
        """(status, answer) of POST /prompt."""
        with self._changed:
            prompt_id = self.renames(body["prompt_id"])
            self.posted[prompt_id] = self.posted.get(prompt_id, 0) + 1
            self.clients.append(body.get("client_id"))
            verdict = self.judge(body["prompt"])
            node_errors = {}
            if verdict and verdict[0] in ("refuse", "partly"):
                error = {"type": "value_not_in_list", "message": "Bad", "details": verdict[1], "extra_info": {}}
                node_errors = {"1": {"class_type": "Thing", "errors": [error], "dependent_outputs": ["1"]}}
            if verdict and verdict[0] == "refuse":
                return 400, {"error": {"message": "Prompt outputs failed validation"}, "node_errors": node_errors}
            self.waiting.append((prompt_id, body["prompt"]))
            self.deepest = max(self.deepest, len(self.waiting) + len(self.running))
            self._changed.notify_all()
            return 200, {"prompt_id": prompt_id, "number": 1, "node_errors": node_errors}

    def cancel(self, ids):
        with self._changed:
            self.cancelled += ids
            self.waiting = [entry for entry in self.waiting if entry[0] not in ids]

    def queue(self):
        with self._changed:
            return {
                "queue_running": [[0, prompt_id, prompt] for prompt_id, prompt in self.running],
                "queue_pending": [[0, prompt_id, prompt] for prompt_id, prompt in self.waiting],
            }

    def _work(self, changed):
        while True:
            with changed:
                while self._alive and changed is self._changed and not self.waiting:
                    changed.wait()
                if not self._alive or changed is not self._changed:
                    return
                self.running = [self.waiting.pop(0)]
            time.sleep(self.seconds)
            with changed:
                if not self._alive or changed is not self._changed:
                    return
                (prompt_id, prompt), self.running = self.running[0], []
                self._end(prompt_id, prompt)

    def _end(self, prompt_id, prompt):
        verdict = self.judge(prompt)
        if verdict and verdict[0] == "error":
            data = {"node_id": "1", "node_type": "Thing", "exception_message": verdict[1]}
            messages = [["execution_start", {}], ["execution_error", data]]
            self.history[prompt_id] = {"outputs": {}, "status": {"status_str": "error", "messages": messages}}
            return
        name = f"ComfyUI_{len(self.files):05}_.png"
        self.files[name] = png(json.dumps(prompt["1"]["inputs"], sort_keys=True))
        self.ran.append(prompt["1"]["inputs"])
        images = [{"filename": name, "subfolder": "", "type": "output"}]
        outputs = {"1": {"images": images, "warnings": ["Mind this."]}}
        self.history[prompt_id] = {"outputs": outputs, "status": {"status_str": "success", "completed": True}}


class Handler(BaseHTTPRequestHandler):
    """Answers one request; `FakeComfy.odd` may use `send` and `drop`."""

    comfy: FakeComfy

    def log_message(self, *_):
        """Say nothing."""

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ValueError):
            pass  # whoever asked has gone

    def do_GET(self):
        path, _, query = self.path.partition("?")
        self.comfy.requests.append(("GET", path, dict(self.headers)))
        if self.comfy.odd(self, path):
            return
        if path == "/queue":
            self.send(200, self.comfy.queue())
        elif path.startswith("/history/"):
            prompt_id = path.rsplit("/", 1)[1]
            row = self.comfy.history.get(prompt_id)
            self.send(200, {} if row is None else {prompt_id: row})
        elif path == "/view":
            data = self.comfy.files[dict(urllib.parse.parse_qsl(query))["filename"]]
            if self.comfy.cut:
                self.comfy.cut -= 1
                self.send(200, data[:5], len(data))
            else:
                self.send(200, data)
        else:
            self.send(404, {})

    def do_POST(self):
        self.comfy.requests.append(("POST", self.path, dict(self.headers)))
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.comfy.odd(self, self.path):
            return
        if self.path == "/prompt":
            self.send(*self.comfy.accept(self.body))
        elif self.path == "/queue":
            self.comfy.cancel(self.body["delete"])
            self.send(200, b"")

    def send(self, status, answer, length=None, **headers):
        """Answer with bytes, or with JSON; `length` is what the header says of it."""
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        return True

    def drip(self, seconds=0.05, data=b" "):
        """Answer a byte now and then, without an end."""
        self.send_response(200)
        self.end_headers()
        while self.comfy._alive:
            self.wfile.write(data)
            self.wfile.flush()
            time.sleep(seconds)
        return True

    def drop(self):
        """Break the connection off."""
        self.close_connection = True
        self.connection.close()
        return True
