"""A store that fails on purpose: a proxy before the real S3 server, with faults to order.

    with FaultProxy(store.endpoint, [cut(path="shard-", after_bytes=1000, every=3)]) as proxy:
        monkeypatch.setenv("S3_ENDPOINT", proxy.endpoint)
        s3.client.cache_clear()
        ...
    assert proxy.injected["cut"] > 0

``behind(proxy, monkeypatch)`` does that for a block, with a client of its own.
Subprocesses are reached by the same variable of the environment. Requests pass unchanged, ``Host``
included, so the signatures of the client hold. Everything runs in threads of the test's process
and ends with the block, stalled requests too.
"""

import functools
import http.client
import itertools
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import unquote, urlsplit

import pytest

from plsc.storage import s3

Kind = Literal["busy", "error", "reset", "lose", "cut", "stall", "call"]
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What to do to which requests; one that several faults want gets the first of them.

    Args:
        kind: busy: answer 503 SlowDown. error: answer 500 InternalError. reset: reset the
            connection, and tell the store nothing. lose: the store does what it is asked, but
            the connection is reset in place of the answer. cut: reset it after ``after_bytes`` of
            the answer's body. stall: fall silent there (at 0: before the answer begins). call: do
            ``action`` there, and go on.
        method: GET, PUT, POST, DELETE, HEAD; "" is any.
        path: What the path and query, without percent signs, must contain.
        every: Of the requests that match, take each n-th ...
        first: ... from this one on (counted from 1) ...
        times: ... and no more than so many of them (None: no limit).
        after_bytes: Bytes of the body that pass before.
        action: What "call" does; cut and stall do it too, before they strike.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    every: int = 1
    first: int = 1
    times: int | None = None
    after_bytes: int = 0
    action: Callable[[], object] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), compare=False)

    def strikes(self, method: str, path: str) -> bool:
        """Count this request if it matches, and say whether it is one to spoil."""
        if self.method not in ("", method) or self.path not in unquote(path):
            return False
        later = next(self._numbers) - self.first
        nth = later // self.every
        return later >= 0 and later % self.every == 0 and (self.times is None or nth < self.times)


busy = partial(Fault, "busy")
error = partial(Fault, "error")
reset = partial(Fault, "reset")
lose = partial(Fault, "lose")
cut = partial(Fault, "cut")
stall = partial(Fault, "stall")
call = partial(Fault, "call")


class FaultProxy:
    """An HTTP proxy on a free port of the loopback, for the time of a ``with`` block.

    Attributes:
        endpoint: Its URL, for ``S3_ENDPOINT``.
        injected: How many faults of each kind were done.
        requests: How many requests of each method came, faults included.
    """

    def __init__(self, target: str, faults: Sequence[Fault] = ()) -> None:
        parts = urlsplit(target)
        self.target = (parts.hostname, parts.port)
        self.faults = [replace(fault, _numbers=itertools.count(1)) for fault in faults]
        self.injected: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_of(self, method: str, path: str) -> Fault | None:
        """Count a request and return what is to be done to it."""
        with self._lock:
            self.requests[method] += 1
            struck = [fault for fault in self.faults if fault.strikes(method, path)]
            if not struck:
                return None
            self.injected[struck[0].kind] += 1
            return struck[0]


@contextmanager
def behind(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Within the block, storage of this process and of its children goes through the proxy."""
    with monkeypatch.context() as patch:
        patch.setenv("S3_ENDPOINT", proxy.endpoint)
        client = functools.cache(s3.client.__wrapped__)
        os.register_at_fork(after_in_child=client.cache_clear)
        patch.setattr(s3, "client", client)  # the other one is kept for later
        with proxy:
            yield proxy


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultProxy

    def handle_error(self, *_: object) -> None:
        """Say nothing: broken connections are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def relay(self) -> None:
        if "Transfer-Encoding" in self.headers:
            self.send_error(501, "this proxy takes no body of unknown length")
            return
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size)
        fault = self.server.proxy.fault_of(self.command, self.path)
        if fault is None or fault.kind not in {"busy", "error", "reset"}:
            self._pass_on(content, fault)
        elif fault.kind == "reset":
            self._reset()
        else:
            self._refuse(fault.kind)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = relay

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _refuse(self, kind: Kind) -> None:
        status, code = (503, "SlowDown") if kind == "busy" else (500, "InternalError")
        body = (
            b""
            if self.command == "HEAD"
            else (
                f"<Error><Code>{code}</Code><Message>so it was ordered</Message></Error>".encode()
            )
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, content: bytes, fault: Fault | None) -> None:
        target = http.client.HTTPConnection(*self.server.proxy.target, timeout=60)
        try:
            target.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"expect", "connection"}:
                    target.putheader(name, value)
            target.putheader("Connection", "close")
            target.endheaders(content)
            answer = target.getresponse()
            if fault is not None and fault.kind == "lose":
                self._reset()
            elif fault is None or fault.after_bytes or not self._struck(fault):
                self._answer(answer, fault)
        finally:
            target.close()

    def _answer(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        chunked = answer.getheader("Transfer-Encoding") == "chunked"
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() != "connection":
                self.send_header(name, value)
        self.end_headers()
        left = fault.after_bytes if fault else 0
        while left and (piece := answer.read(min(left, _PIECE_BYTES))):
            self._send(piece, chunked=chunked)
            left -= len(piece)
        if fault is not None and fault.after_bytes and self._struck(fault):
            return
        while piece := answer.read(_PIECE_BYTES):
            self._send(piece, chunked=chunked)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, piece: bytes, *, chunked: bool) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)

    def _struck(self, fault: Fault) -> bool:
        """Do the fault in the middle of a body; return whether the connection is lost."""
        if fault.action is not None:
            fault.action()
        if fault.kind == "call":
            return False
        if fault.kind == "stall":
            self.server.proxy.ended.wait()
        self._reset()
        return True

    def _reset(self) -> None:
        """Drop the connection without a farewell (RST in place of FIN)."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
