"""Where the cluster is and who asks, as the environment says."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from plsc.errors import ConfigError

__all__ = ["Settings", "token_source"]

_POD_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105  a path


@dataclass(frozen=True)
class Settings:
    """The variables of ``pipelines.cluster``, checked."""

    host: str
    namespace: str = ""
    ca_cert_path: str = ""
    service_account: str = ""
    experiment: str = "plsc"

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Return what ``environment`` says.

        Raises:
            ConfigError: If ``KFP_HOST`` is no address, or a file is named that does not exist.
        """
        host = environment.get("KFP_HOST", "").rstrip("/")
        if host != "kubectl" and not host.startswith(("http://", "https://", "kubectl://")):
            raise ConfigError(
                f"KFP_HOST must be http://..., https://..., kubectl or kubectl://NAMESPACE/SERVICE,"
                f" not {host!r}"
            )
        ca_cert_path = environment.get("KFP_CA_CERT", "")
        if ca_cert_path and not Path(ca_cert_path).is_file():
            raise ConfigError(f"KFP_CA_CERT names {ca_cert_path}, which is no file")
        return cls(
            host=host,
            namespace=environment.get("KFP_NAMESPACE", ""),
            ca_cert_path=ca_cert_path,
            service_account=environment.get("KFP_SERVICE_ACCOUNT", ""),
            experiment=environment.get("KFP_EXPERIMENT", "") or "plsc",
        )


def token_source(environment: Mapping[str, str] = os.environ) -> Callable[[], str] | None:
    """Return what gives the bearer token, or None where there is none to give.

    A file is read anew at every call: the tokens of service accounts are renewed in place.

    Raises:
        ConfigError: If a file is named that cannot be read, or is empty.
    """
    named = environment.get("KFP_TOKEN_FILE", "")
    if named:
        _read_token(named)
        return lambda: _read_token(named)
    if token := environment.get("KFP_TOKEN", "").strip():
        return lambda: token
    mounted = environment.get("KF_PIPELINES_SA_TOKEN_PATH", _POD_TOKEN)
    return (lambda: _read_token(mounted)) if Path(mounted).is_file() else None


def _read_token(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the token file {path} cannot be read: {error}") from error
    if not token:
        raise ConfigError(f"the token file {path} is empty")
    return token
