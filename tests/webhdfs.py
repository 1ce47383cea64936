"""A small WebHDFS: a name node and a data node of one folder, over HTTP on the loopback.

It answers as Hadoop 3 documents it (``LISTSTATUS``, ``GETFILESTATUS``, and ``OPEN`` by way of a
redirect from the name node to a data node), so the client under test is the real one.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

_PREFIX = "/webhdfs/v1"


class WebHdfs:
    """Serves ``folder`` for the time of a ``with`` block.

    Attributes:
        name_endpoint: URL of the name node.
        data_endpoint: URL of the data node, to which the name node sends readers; may be changed
            to that of a proxy before it.
        users: Who asked, in the order of the requests to the name node.
        refuses: Answer 403 with an AccessControlException.
        is_strict: Answer 400 with an IllegalArgumentException, as to names that Hadoop refuses.
        is_forgetful: The data node answers 404, although the name node knows the file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users: list[str] = []
        self.refuses = self.is_forgetful = self.is_strict = False
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
        for server in self._servers:
            server.cluster = self
        endpoints = [f"http://127.0.0.1:{server.server_port}" for server in self._servers]
        self.name_endpoint, self.data_endpoint = endpoints

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    cluster: WebHdfs

    def handle_error(self, *_: object) -> None:
        """Say nothing: tests break connections."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        cluster, parts = self.server.cluster, urlsplit(self.path)
        name = unquote(parts.path).removeprefix(_PREFIX)
        path, query = cluster.folder / name.lstrip("/"), parse_qs(parts.query)
        if "datanode" in query:
            self._send_content(path, int(query["offset"][0]), int(query["length"][0]))
            return
        cluster.users.append(query.get("user.name", [""])[0])
        if cluster.refuses:
            self._send_error(403, "AccessControlException", "Permission denied: user=nobody")
        elif cluster.is_strict:
            self._send_error(400, "IllegalArgumentException", "Invalid path name")
        elif not path.exists():
            self._send_error(404, "FileNotFoundException", f"File does not exist: {name}")
        else:
            self._answer(query["op"][0], path)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, operation: str, path: Path) -> None:
        if operation == "OPEN":
            self.send_response(307)
            location = f"{self.server.cluster.data_endpoint}{self.path}&datanode=1"
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif operation == "GETFILESTATUS":
            self._send_json(200, {"FileStatus": _status(path, "")})
        else:
            assert operation == "LISTSTATUS"
            found = [(path, "")] if path.is_file() else [(one, one.name) for one in path.iterdir()]
            statuses = [_status(one, suffix) for one, suffix in found]
            self._send_json(200, {"FileStatuses": {"FileStatus": statuses}})

    def _send_content(self, path: Path, offset: int, length: int) -> None:
        if self.server.cluster.is_forgetful:
            self._send_error(404, "FileNotFoundException", "no such block")
            return
        content = path.read_bytes()[offset : offset + length]
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_error(self, status: int, exception: str, message: str) -> None:
        self._send_json(status, {"RemoteException": {"exception": exception, "message": message}})

    def _send_json(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _status(path: Path, suffix: str) -> dict[str, object]:
    status = path.stat()
    return {
        "pathSuffix": suffix,
        "type": "DIRECTORY" if path.is_dir() else "FILE",
        "length": 0 if path.is_dir() else status.st_size,
        "modificationTime": status.st_mtime_ns // 1_000_000,
    }
