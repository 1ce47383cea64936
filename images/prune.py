"""Remove what no stage uses of what pip installed: ``python prune.py``, in the install's layer.

Tests, headers, the descriptions of 400 services of which we call one. The tests of the images run
the pipeline without it.
"""

import shutil
import sysconfig
from pathlib import Path

_SITE = Path(sysconfig.get_path("purelib"))

_UNUSED = (
    "botocore/data/*/",  # one folder per service; _KEPT_SERVICES stay
    "mpmath/tests/",
    "networkx/**/tests/",
    "numpy/**/tests/",
    "onnx/backend/test/",
    "pyarrow/include/",
    "pyarrow/tests/",
    "pyarrow/_flight.*",  # Arrow's own network protocol
    "pyarrow/libarrow_flight.so*",
    "pyarrow/libarrow_python_flight.so*",
    "pyarrow/_s3fs.*",  # we have boto3
    "pyarrow/libarrow_s3.so*",
    "sympy/**/tests/",
    "tensorboard/webfiles.zip",  # for showing events; we write them
    "tensorboard_data_server/bin/",
)
"""Globs below site-packages. torch itself is left as it is: what a GPU needs is not seen here."""

_KEPT_SERVICES = ("s3", "sso", "sso-oidc", "sts")
"""The object store, and how boto3 comes by credentials."""


def main() -> None:
    """Remove it."""
    for pattern in _UNUSED:
        for path in sorted(_SITE.glob(pattern)):
            is_kept = pattern.startswith("botocore") and path.name in _KEPT_SERVICES
            if path.is_dir() and not is_kept:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()


if __name__ == "__main__":
    main()
