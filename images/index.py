"""How a build reaches the package index: by this host's own pip settings and certificates.

A build sees neither the host's files nor its PIP_* variables, so they are gathered into one
pip.conf for the build secret ``pip-conf``; the certificates go in as ``ca-bundle``.
"""

import configparser
import os
import sys
from pathlib import Path

__all__ = ["BUNDLE", "ca_bundle", "pip_conf"]

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Where a build finds the certificates; Debian's own place for them on the host."""

_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
"""What of the host's settings means the same inside a build: no paths, no environments."""

_SECTIONS = ("global", "install")


def ca_bundle() -> Path | None:
    """Return the file with the certificates that this host trusts, or None."""
    named = (os.environ.get(name) for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))
    for path in (*named, _host_settings().get("cert"), BUNDLE):
        if path and Path(path).is_file():
            return Path(path)
    return None


def pip_conf(*, has_bundle: bool) -> str:
    """Return a pip.conf with what this host's pip is told about its index."""
    host = _host_settings()
    found = {key: host[key] for key in _SETTINGS if key in host}
    if has_bundle:
        found["cert"] = BUNDLE
    lines = [f"{key} = " + "\n    ".join(value.split()) for key, value in found.items()]
    return "\n".join(["[global]", *lines, ""])


def _host_settings() -> dict[str, str]:
    """Return pip's settings: the system's, the user's, the environment's; then the variables."""
    home = Path.home()
    paths = ["/etc/pip.conf", home / ".pip/pip.conf", home / ".config/pip/pip.conf"]
    paths += [Path(sys.prefix) / "pip.conf"]
    if os.environ.get("PIP_CONFIG_FILE"):
        paths.append(os.environ["PIP_CONFIG_FILE"])
    parser = configparser.RawConfigParser()
    parser.read(paths)
    settings: dict[str, str] = {}
    for section in _SECTIONS:
        if parser.has_section(section):
            settings |= dict(parser.items(section))
    for key in (*_SETTINGS, "cert"):
        value = os.environ.get("PIP_" + key.upper().replace("-", "_"))
        if value:
            settings[key] = value
    return settings
