"""A judge's server that answers as it is told: late, busy, broken, silent or well."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SILENCE = 30.0
"""Seconds without a word: longer than any deadline of a test."""


@dataclass
class Reply:
    """What the server does with one request."""

    text: str | None = None
    """The judge's text, in OpenAI's form."""
    status: int = 200
    body: bytes = b"{}"
    """What is sent if there is no text."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drip: bool = False
    """Send a byte now and then, without an end."""

    def content(self) -> bytes:
        """Return the bytes to send."""
        if self.text is None:
            return self.body
        message = {"role": "assistant", "content": self.text}
        return json.dumps({"choices": [{"message": message}]}).encode()


@dataclass
class JudgeServer:
    """What a server was asked."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    num_open: int = 0
    most_open: int = 0

    @property
    def questions(self) -> list[str]:
        """The text of each question, in the order of arrival."""
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def judge_server(reply_to: Callable[[str, int], Reply]) -> Iterator[JudgeServer]:
    """Serve `reply_to(question, number of its earlier requests)` in a thread of its own."""
    stopping = threading.Event()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = request["messages"][0]["content"]
            with lock:
                number = found.questions.count(question)
                found.requests.append({**request, "path": self.path})
                found.keys.append(self.headers["Authorization"])
                found.times.append(time.monotonic())
                found.num_open += 1
                found.most_open = max(found.most_open, found.num_open)
            try:
                self._reply(reply_to(question, number))
            except OSError:
                pass  # the client has left
            finally:
                with lock:
                    found.num_open -= 1

        def _reply(self, reply: Reply) -> None:
            stopping.wait(reply.delay_s)
            content = reply.content()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) + 1000 * reply.drip))
            self.end_headers()
            self.wfile.write(content)
            while reply.drip and not stopping.wait(0.05):
                self.wfile.write(b" ")

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = JudgeServer(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield found
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
