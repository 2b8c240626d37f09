"""A web server on this machine, for tests of downloads."""

import hashlib
import http.server
import socketserver
import threading


class Server(http.server.ThreadingHTTPServer):
    """Serves one body under any path; `cuts` says after how many bytes each of the first answers breaks off."""

    def __init__(self, body: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.sha256 = body, hashlib.sha256(body).hexdigest()
        self.cuts: list[int] = []
        self.status = 200
        self.knows_ranges = True
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/{self.sha256}/weights.pt"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.knows_ranges else 0
        body = self.server.body[start:]
        status = self.server.status if self.server.status != 200 else 206 if start else 200
        self.send_response(416 if start and not body else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)

    def log_message(self, *args) -> None:
        pass


class Raw(socketserver.ThreadingTCPServer):
    """Answers every request with the same bytes, then closes; or waits (``wait``), or sends a byte now and then
    (``drip``), until the client has gone."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: bytes, wait: bool = False, drip: bool = False):
        super().__init__(("127.0.0.1", 0), RawHandler)
        self.answer, self.wait, self.drip, self.asked = answer, wait, drip, 0
        self.pause = threading.Event()  # time.sleep may be replaced
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def server_port(self) -> int:
        return self.server_address[1]


class RawHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.server.asked += 1
        length = 0
        while (line := self.rfile.readline()).strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        self.rfile.read(length)
        try:
            self.wfile.write(self.server.answer)
            while self.server.wait or self.server.drip:
                if self.server.pause.wait(0.01):
                    return
                self.wfile.write(b"x" * self.server.drip)
        except OSError:
            pass
