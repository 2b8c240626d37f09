"""Asking servers that may be slow, wrong or hostile: limits of time, and no schemes but http and https."""

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

AGENT = "fair/1.0"  # some servers turn away urllib's own name
SILENCE = 30  # seconds without a byte after which a connection counts as cut
NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)  # what a connection may end in


class Watch:
    """Ends connections when their time is over, whatever they are waiting for."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._sockets: list[socket.socket] = []
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        """From now on, so many seconds are left."""
        self.stop()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if hasattr(self, "_timer"):
            self._timer.cancel()

    def add(self, connected: socket.socket) -> None:
        self._sockets.append(connected)

    def check(self) -> None:
        """Raises TimeoutError if the time is over: an answer that was cut off may look whole."""
        if self.over:
            raise TimeoutError("it took too long")

    def _end(self) -> None:
        self.over = True
        for connected in self._sockets:
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Watched(http.client.HTTPConnection):
    def __init__(self, *args: Any, watch: Watch, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.watch = watch

    def connect(self) -> None:
        super().connect()
        self.watch.add(self.sock)


class _WatchedTls(_Watched, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = partial(_Watched, watch=self.watch)
        return self.do_open(connection, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        connection: Any = partial(_WatchedTls, watch=self.watch, context=ssl.create_default_context())
        return self.do_open(connection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        schemes = ("https",) if req.full_url.startswith("https:") else ("http", "https")
        if (scheme := urlsplit(newurl).scheme) not in schemes:
            raise urllib.error.URLError(f"it leads on to an address with {scheme}:, not {' or '.join(schemes)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def asked(
    url: str, headers: Mapping[str, str], seconds: float, data: bytes | None = None, follow: bool = True
) -> Iterator[tuple[http.client.HTTPResponse, Watch]]:
    """A server's answer to a GET (with ``data``: a POST), and the watch over it, which ends it after so many seconds.

    Args: follow, redirects, and raise HTTPError for refusals; without it, any status is an answer.

    Raises:
        OSError, http.client.HTTPException, ValueError: no answer. None of them is worded for people.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("it is no address with http: or https:")
    watch = Watch(seconds)
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler(), _Http(watch), _Https(watch)]
    if follow:
        handlers += [_Redirects(), urllib.request.HTTPErrorProcessor(), urllib.request.HTTPDefaultErrorHandler()]
    for handler in handlers:
        opener.add_handler(handler)
    request = urllib.request.Request(url, data, {"User-Agent": AGENT, "Accept-Encoding": "identity", **headers})
    try:
        with opener.open(request, timeout=SILENCE) as response:
            yield response, watch
    except NETWORK_ERRORS:
        watch.check()
        raise
    finally:
        watch.stop()
