"""Words for what went wrong in a store: where, what, and what to do."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from plsc.errors import StorageError
from plsc.storage import patience

__all__ = ["REPLACED", "explained"]

_REFUSED = "these credentials may not do that: check AWS_ACCESS_KEY_ID and the bucket's policy"
REPLACED = (
    "it was replaced by another object while it was read: let nothing write there meanwhile,"
    " and run this again"
)
_BUSY = "the store has too much to do, or is ill: look at its logs, use fewer workers, or wait"
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct the uri",
    "NoSuchKey": "there is no such object: check the uri, or run the stage that writes it",
    "404": "there is no such object: check the uri, or run the stage that writes it",
    "InvalidAccessKeyId": "the access key is unknown there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": _REFUSED,
    "403": _REFUSED,
    "PreconditionFailed": REPLACED,
    "412": REPLACED,
}


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn botocore's and the operating system's errors into StorageErrors with advice."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        explanation = _explain(error)
        if explanation is None:
            raise
        raise StorageError(f"{uri}: {explanation}") from error


def _explain(error: Exception) -> str | None:
    of_s3 = _explain_s3(error) if "botocore" in sys.modules else None  # some are OSErrors as well
    if of_s3 is None and isinstance(error, FileNotFoundError):
        return "there is no such file: check the path, or run the stage that writes it"
    if of_s3 is None and isinstance(error, PermissionError):
        return f"{error.strerror or error} ({error.filename}): check this user's rights there"
    if of_s3 is None and isinstance(error, OSError):
        return f"{error.strerror or error}: check that the disk has room and may be written"
    return of_s3


def _explain_s3(error: Exception) -> str | None:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        NoCredentialsError,
    )

    if isinstance(error, Boto3Error) and isinstance(error.__context__, ClientError):
        error = error.__context__
    if isinstance(error, ClientError):
        return _of_answer(error.response)
    if isinstance(error, NoCredentialsError):
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and S3_ENDPOINT)"
    if isinstance(error, patience.broken_connections()):
        return _of_connection(error)
    if isinstance(error, BotoCoreError | Boto3Error):
        return str(error)
    return None


def _of_connection(error: Exception) -> str:
    """Explain why there is no connection, or none any more."""
    from botocore.exceptions import (  # noqa: PLC0415
        ConnectTimeoutError,
        EndpointConnectionError,
        SSLError,
    )

    endpoint = os.environ.get("S3_ENDPOINT", "AWS")
    if isinstance(error, SSLError):
        return f"{error}: check the certificate of {endpoint}, and AWS_CA_BUNDLE"
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return (
            f"no object store answers at {endpoint} (asked {patience.TRIES} times): start it"
            " (make services-up), or correct S3_ENDPOINT"
        )
    return (
        f"{error} ({patience.TRIES} times): check the network and the store at {endpoint},"
        f" or give it more than the {patience.timeout_s():g} s of S3_TIMEOUT_S"
    )


def _of_answer(response: Any) -> str:
    """Explain what a store answered that did not do what it was asked."""
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    code = str(error.get("Code", "unknown"))
    if code in _ADVICE:
        return _ADVICE[code]
    tries = metadata.get("RetryAttempts", 0) + 1
    times = f" {tries} times" if tries > 1 else ""
    advice = f": {_BUSY}" if metadata.get("HTTPStatusCode", 0) >= 429 else ""
    return f"the store answered {code}{times} ({error.get('Message', '')}){advice}"
