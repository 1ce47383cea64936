"""One request to the API server: sent, timed, and its refusal turned into an error."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kubernetes.client import ApiException
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from plsc.cluster.connection import Connection
from plsc.cluster.refusals import AwayError, refusal
from plsc.errors import ClusterError

__all__ = ["Request", "Requests"]

_CONNECT_S = 5.0


@dataclass(frozen=True)
class Request:
    """What is asked.

    Attributes:
        method: HTTP's word: ``GET``.
        path: Of the object or the collection.
        what: The same in words, for errors: ``get pods plsc-train-0 in namespace kubeflow``.
        query: Parameters of the address.
        body: A JSON document.
        content_type: Of the body.
        timeout_s: Longest silence of the server, in seconds; a tenth of it at least for connecting.
    """

    method: str
    path: str
    what: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    timeout_s: float = 30.0


class Requests:
    """The one place through which every request to the API server goes; safe for threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client = connection.open()
        self._streams: set[HTTPResponse] = set()
        self._lock = threading.Lock()
        self.closed = threading.Event()

    def send(self, request: Request) -> Any:
        """Return the server's JSON answer.

        Raises:
            ClusterError: As ``plsc.cluster.refusals`` says.
        """
        with self._answer(request) as response:
            content = response.data
        return json.loads(content) if content else {}

    def stream(self, request: Request) -> Iterator[tuple[bytes, bool]]:
        """Yield the answer's lines as they arrive, without their ends, and whether they had one.

        The last may have none, if the answer ended properly.

        Raises:
            ClusterError: As ``send``; ``AwayError`` when the connection breaks.
        """
        with self._answer(request) as response:
            rest = b""
            try:
                with self._lock:
                    if self.closed.is_set():
                        raise AwayError(f"{request.what}: this connection was closed")
                    self._streams.add(response)
                for chunk in response.stream(None, decode_content=False):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from ((line, True) for line in lines)
            finally:
                with self._lock:
                    self._streams.discard(response)
                response.close()  # half read, it must not go back to the pool
            if rest:
                yield rest, False

    def close(self) -> None:
        """End all streams, also in other threads, and the connections."""
        with self._lock:
            self.closed.set()
            for response in self._streams:
                try:
                    response.shutdown()
                except (OSError, ValueError, RuntimeError):  # it has just ended by itself
                    continue
        self._client.rest_client.pool_manager.clear()

    @contextmanager
    def _answer(self, request: Request) -> Iterator[HTTPResponse]:
        account = self._connection.account
        if self.closed.is_set():
            raise AwayError(f"{request.what}: this connection was closed")
        try:
            response = self._client.call_api(
                request.path,
                request.method,
                query_params=list(request.query.items()),
                header_params={
                    "Accept": "application/json, */*",
                    "Content-Type": request.content_type,
                },
                body=request.body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(min(_CONNECT_S, request.timeout_s), request.timeout_s),
            )
            yield response
        except ApiException as error:
            if not error.status:  # the library's word for TLS that failed
                raise self._away(request, error.reason) from error
            raise refusal(
                error.status,
                _message(error),
                what=request.what,
                account=account,
                retry_after=(error.headers or {}).get("Retry-After", ""),
            ) from error
        except (HTTPError, OSError) as error:
            raise self._away(request, error) from error

    def _away(self, request: Request, error: object) -> ClusterError:
        host = self._connection.configuration.host
        told = f"cannot {request.what}: no answer from the Kubernetes API at {host}: {error}"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ClusterError(
                f"{told}; its certificate does not fit this account's authority: "
                "check the cluster that the kubeconfig names"
            )
        return AwayError(told)


def _message(error: ApiException) -> str:
    """Return what the server said; a proxy before it may not say it as Kubernetes does."""
    body = error.body.decode("utf-8", "replace") if isinstance(error.body, bytes) else error.body
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return (body or error.reason or "no reason given").strip()[:300]
