"""A store that is down for a moment is waited for; one that answers otherwise is understood."""

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore import exceptions

from plsc import storage
from plsc.errors import StorageError
from plsc.storage import patience, s3

CONTENT = os.urandom(3_000_000)
Serving = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A free port, at which ``storage`` looks for its store."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    for name, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("S3_ENDPOINT", f"http://127.0.0.1:{free}")
    monkeypatch.setattr(patience, "PAUSE_S", 0.05)
    s3.client.cache_clear()
    yield free
    s3.client.cache_clear()


@contextlib.contextmanager
def serving(
    port: int,
    content: bytes = CONTENT,
    *,
    ranges: bool = True,
    break_at: int | None = None,
    longest: int | None = None,
) -> Iterator[None]:
    """Serve one object; answers break after ``break_at`` bytes, and have ``longest`` at most."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range") if ranges else None
            first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last) + 1 if last else None][:longest]
            self.send_response(206 if asked else 200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", str(len(part)))
            if asked:
                end = int(first) + len(part) - 1
                self.send_header("Content-Range", f"bytes {first}-{end}/{len(content)}")
            self.end_headers()
            self.wfile.write(part[:break_at])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield
        server.shutdown()


def test_a_store_that_is_down_for_a_moment_is_waited_for(port: int) -> None:
    with contextlib.ExitStack() as stack:
        timer = threading.Timer(0.4, lambda: stack.enter_context(serving(port)))
        timer.start()
        assert storage.read_bytes("s3://b/k") == CONTENT
        timer.join()


def test_a_store_that_restarts_in_the_middle_costs_no_byte(port: int) -> None:
    with contextlib.ExitStack() as stack:
        with serving(port, break_at=1_000_000):
            reader = stack.enter_context(storage.open_reader("s3://b/k"))
            beginning = reader.read(1000)
        timer = threading.Timer(0.4, lambda: stack.enter_context(serving(port)))
        timer.start()
        assert beginning + reader.read() == CONTENT
        timer.join()


def test_a_connection_that_is_refused_is_made_six_times(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(patience, "pause_s", lambda failures, **_: pauses.append(failures) or 0.0)
    with pytest.raises(StorageError, match=rf"no object store answers at .*{port} \(asked 6 times"):
        storage.read_bytes("s3://b/k")
    assert pauses == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (exceptions.ConnectTimeoutError, r"no object store answers.*asked 6 times"),
        (exceptions.ProxyConnectionError, r"\(6 times\): check the network"),
    ],
)
def test_other_failures_to_connect_are_told(
    port: int, error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PAUSE_S", 0.001)
    asked = []

    def fail(**_: object) -> None:
        asked.append(1)
        raise error(endpoint_url="http://x", proxy_url="http://proxy")

    s3.client().meta.events.register("before-send", fail)
    with pytest.raises(StorageError, match=words):
        storage.read_bytes("s3://b/k")
    assert len(asked) == patience.TRIES


def test_a_certificate_that_is_wrong_is_told_at_once(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_ENDPOINT", f"https://127.0.0.1:{port}")
    begin = time.monotonic()
    with serving(port), pytest.raises(StorageError, match=r"SSL.*check the certificate of https"):
        storage.read_bytes("s3://b/k")
    assert ssl.OPENSSL_VERSION
    assert time.monotonic() - begin < 5


def test_an_answer_without_a_range_will_do_for_the_whole(port: int) -> None:
    with serving(port, b"", ranges=False):
        for stop in (None, 10):
            with storage.open_reader("s3://b/k", stop=stop) as reader:
                assert reader.read() == b""
    with serving(port, b"12345", ranges=False):
        assert storage.read_range("s3://b/k", 0, 5) == b"12345"
        with storage.open_reader("s3://b/k", stop=10) as reader:
            assert reader.read() == b"12345"
        for start, stop in [(0, 4), (1, 5)]:
            with pytest.raises(StorageError, match=r"must support ranged requests"):
                storage.read_range("s3://b/k", start, stop)


def test_an_answer_shorter_than_asked_is_not_taken_for_the_end(port: int) -> None:
    with serving(port, longest=700_000):
        assert storage.read_range("s3://b/k", 10, 2_900_000) == CONTENT[10:2_900_000]
        with storage.open_reader("s3://b/k", start=10) as reader:
            assert reader.read() == CONTENT[10:]


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3:/bucket/key", "minio:key"])
def test_a_uri_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(StorageError, match="names no bucket: expected s3://bucket/key"):
        storage.read_bytes(uri)


@pytest.mark.parametrize("key", ["/a", "a?", "?", "a?b#c", "a\tb\r\n", " a ", "a//b", "%41"])
@pytest.mark.parametrize("scheme", ["s3", "minio", "S3"])
def test_every_character_of_a_key_is_kept(scheme: str, key: str) -> None:
    assert s3._bucket_and_key(f"{scheme}://bucket/{key}") == ("bucket", key)
