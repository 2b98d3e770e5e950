"""A small ComfyUI over HTTP: /prompt, /queue, /history, /view; its "images" are the prompts that made them.

It can be killed and started again on its port, as a server is that loses its memory, and be made to misbehave.
"""

import json
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeComfy:
    """One server; prompts run one after the other, `seconds` each.

    Attributes:
        ran: the inputs of node "1" of every prompt that ran to its end, over all lives.
        posted: how often each prompt id was posted.
        deepest: the most prompts that ran or waited at once.
        judge: prompt -> None, ("refuse", sentence) or ("error", sentence).
    """

    def __init__(self, seconds=0.01, judge=lambda prompt: None):
        self.seconds, self.judge = seconds, judge
        self.ran, self.posted, self.deepest, self.cancelled = [], {}, 0, []
        self.renames = False
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
        handler = type("Handler", (_Handler,), {"comfy": self})
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
        self._server.server_close()
        self._server = None

    def accept(self, body):
        """(status, answer) of POST /prompt."""
        with self._changed:
            prompt_id = "given-" + body["prompt_id"] if self.renames else body["prompt_id"]
            self.posted[prompt_id] = self.posted.get(prompt_id, 0) + 1
            verdict = self.judge(body["prompt"])
            if verdict and verdict[0] == "refuse":
                error = {"message": "Bad", "details": verdict[1]}
                node_errors = {"1": {"class_type": "Thing", "errors": [error]}}
                return 400, {"error": {"message": "Prompt outputs failed validation"}, "node_errors": node_errors}
            self.waiting.append((prompt_id, body["prompt"]))
            self.deepest = max(self.deepest, len(self.waiting) + len(self.running))
            self._changed.notify_all()
            return 200, {"prompt_id": prompt_id, "number": 1, "node_errors": {}}

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
        if verdict:
            data = {"node_id": "1", "node_type": "Thing", "exception_message": verdict[1]}
            messages = [["execution_start", {}], ["execution_error", data]]
            self.history[prompt_id] = {"outputs": {}, "status": {"status_str": "error", "messages": messages}}
            return
        name = f"ComfyUI_{len(self.files):05}_.png"
        self.files[name] = json.dumps(prompt["1"]["inputs"], sort_keys=True).encode()
        self.ran.append(prompt["1"]["inputs"])
        images = [{"filename": name, "subfolder": "", "type": "output"}]
        outputs = {"1": {"images": images, "warnings": ["Mind this."]}}
        self.history[prompt_id] = {"outputs": outputs, "status": {"status_str": "success", "completed": True}}


class _Handler(BaseHTTPRequestHandler):
    comfy: FakeComfy

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/queue":
            self._answer(200, self.comfy.queue())
        elif path.startswith("/history/"):
            prompt_id = path.rsplit("/", 1)[1]
            row = self.comfy.history.get(prompt_id)
            self._answer(200, {} if row is None else {prompt_id: row})
        elif path == "/view":
            data = self.comfy.files[dict(urllib.parse.parse_qsl(query))["filename"]]
            if self.comfy.cut:
                self.comfy.cut -= 1
                self._send(200, data[:5], len(data))
            else:
                self._send(200, data)
        else:
            self._answer(404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/prompt":
            self._answer(*self.comfy.accept(body))
        elif self.path == "/queue":
            self.comfy.cancel(body["delete"])
            self._answer(200, {})

    def _answer(self, status, answer):
        self._send(status, json.dumps(answer).encode())

    def _send(self, status, data, length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
