"""The connection to KFP's API: credentials, proxies, and errors that say what to do."""

import json
import logging
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import kfp_server_api
import urllib3
from kfp_server_api.exceptions import ApiException

from pipelines.cluster.errors import UnavailableError
from pipelines.cluster.page import page
from pipelines.cluster.port_forward import PortForward
from pipelines.cluster.settings import Settings, token_source
from plsc.errors import ClusterError, ConfigError

__all__ = ["Connection", "connect"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

TIMEOUT_S = (10, 60)
"""For a connection, and for the answer."""
_PATIENCE_S = 60.0
_LONGEST_PAUSE_S = 15.0
_TRY_AGAIN = {0, 408, 429, 500, 502, 503, 504}
_ADVICE = {
    401: "give a valid token with KFP_TOKEN_FILE or KFP_TOKEN",
    403: "the account may not do that: see KFP_NAMESPACE, and ask who manages the cluster",
}


class Connection:
    """KFP's API at one address."""

    def __init__(self, settings: Settings, host: str, *, renew: Callable[[], None]) -> None:
        """Prepare a connection; nothing is asked yet.

        Args:
            settings: Who asks.
            host: Where to.
            renew: Called when KFP could not be reached.
        """
        self.settings = settings
        self.host = host
        self._renew = renew
        self._client = kfp_server_api.ApiClient(_configuration(settings, host))
        self.runs = kfp_server_api.RunServiceApi(self._client)
        self.experiments = kfp_server_api.ExperimentServiceApi(self._client)
        self.pipelines = kfp_server_api.PipelineServiceApi(self._client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(self._client)
        self.health = kfp_server_api.HealthzServiceApi(self._client)

    def close(self) -> None:
        """Close all sockets."""
        self._client.rest_client.pool_manager.clear()
        self._client.close()

    def link(self, run_id: str) -> str:
        """Return the run's page, as ``page`` does."""
        return page(self.settings.host, f"runs/details/{run_id}")

    def ask(self, what: str, function: Callable[..., _T], *positional: Any, **given: Any) -> _T:
        """Call one function of the API once.

        Args:
            what: Of what an error is to speak: ``the run``.
            function: A method of ``runs``, ``experiments``, ...
            positional: Its arguments.
            given: Its named arguments.

        Raises:
            UnavailableError: If it may work later.
            ClusterError: If it will not.
        """
        try:
            return function(*positional, _request_timeout=TIMEOUT_S, **given)
        except ApiException as error:
            raise self._told(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(what, error) from error

    def insist(self, what: str, function: Callable[..., _T], *positional: Any, **given: Any) -> _T:
        """Call as ``ask`` does, again and again for a minute while KFP cannot answer.

        Only for what may be done twice.
        """
        end, pause_s = time.monotonic() + _PATIENCE_S, 1.0
        while True:
            try:
                return self.ask(what, function, *positional, **given)
            except UnavailableError as error:
                if time.monotonic() + pause_s > end:
                    raise
                log.warning("%s; trying again", error)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def read(self, path: str, *, limit_bytes: int) -> bytes | None:
        """Return what KFP serves at ``path``, at most its last ``limit_bytes``; None: nothing.

        For what is good to have, and not there in every version.
        """
        try:
            response = self._client.call_api(
                path, "GET", auth_settings=["Bearer"], _preload_content=False,
                _return_http_data_only=True, _request_timeout=TIMEOUT_S,
            )  # fmt: skip
        except (ApiException, urllib3.exceptions.HTTPError, UnavailableError):
            return None
        try:
            found = b""
            for chunk in response.stream(1 << 16):
                found = (found + chunk)[-limit_bytes:]
        except urllib3.exceptions.HTTPError:
            return None
        finally:
            response.release_conn()
        return found

    def _told(self, what: str, error: ApiException) -> ClusterError:
        status = error.status or 0
        said = _message(error)
        advice = f": {_ADVICE[status]}" if status in _ADVICE else ""
        message = f"KFP at {self.host} answers {status} about {what} ({said}){advice}"
        return (UnavailableError if status in _TRY_AGAIN else ClusterError)(message)

    def _unreachable(self, what: str, error: Exception) -> ClusterError:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, urllib3.exceptions.SSLError):
            return ClusterError(
                f"no trusted connection to KFP at {self.host} ({reason}): name the file of its "
                "certificate authority in KFP_CA_CERT"
            )
        try:
            self._renew()
        except ClusterError as lost:
            reason = lost
        return UnavailableError(f"KFP at {self.host} cannot be reached about {what} ({reason})")


@contextmanager
def connect(settings: Settings) -> Iterator[Connection]:
    """Give a connection to KFP, which has answered once.

    Raises:
        ConfigError: If the settings are wrong.
        ClusterError: If KFP does not answer, or refuses.
    """
    if settings.host.startswith("http"):
        connection = Connection(settings, settings.host, renew=lambda: None)
        yield from _checked(connection)
    else:
        with PortForward(settings.host) as way:
            yield from _checked(Connection(settings, way.host, renew=way.renew))


def _checked(connection: Connection) -> Iterator[Connection]:
    try:
        connection.insist("its health", connection.health.healthz_service_get_healthz)
        yield connection
    finally:
        connection.close()


def _configuration(settings: Settings, host: str) -> Any:
    configuration = kfp_server_api.Configuration(host=host)
    configuration.retries = urllib3.Retry(0)  # what may be tried again is known here
    configuration.ssl_ca_cert = settings.ca_cert_path or None
    scheme, _, rest = host.partition("://")
    if not urllib.request.proxy_bypass(rest.partition("/")[0]):
        configuration.proxy = urllib.request.getproxies().get(scheme)
    token = token_source()
    if token is not None:
        configuration.api_key_prefix["authorization"] = "Bearer"
        configuration.api_key["authorization"] = token()

        def renew(found: Any) -> None:
            try:
                found.api_key["authorization"] = token()
            except ConfigError as error:  # it was there before: it is just being written
                raise UnavailableError(str(error)) from error

        configuration.refresh_api_key_hook = renew
    return configuration


def _message(error: ApiException) -> str:
    """Return what an answer says went wrong, in one line."""
    body = error.body or b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        found = json.loads(text)
        text = found.get("message") or found.get("error") or text
    except (ValueError, AttributeError):
        text = "" if text.lstrip().startswith("<") else text
    first = str(text).strip().partition("\n")[0]
    return first[:300] or str(error.reason)
