"""Words for what went wrong in a store: where, what, and what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from plsc.errors import StorageError

__all__ = ["explained"]

_REFUSED = "these credentials may not do that: check AWS_ACCESS_KEY_ID and the bucket's policy"
_ADVICE = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct the uri",
    "NoSuchKey": "there is no such object: check the uri, or run the stage that writes it",
    "404": "there is no such object: check the uri, or run the stage that writes it",
    "InvalidAccessKeyId": "the access key is unknown there: check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "AccessDenied": _REFUSED,
    "403": _REFUSED,
}


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn botocore's and the operating system's errors into StorageErrors with advice."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(
            f"{uri}: there is no such file: check the path, or run the stage that writes it"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{uri}: {error.strerror or error}: check that the disk has room and may be written"
        ) from error
    except Exception as error:
        explanation = _explain(error)
        if explanation is None:
            raise
        raise StorageError(f"{uri}: {explanation}") from error


def _explain(error: Exception) -> str | None:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import (  # noqa: PLC0415
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        NoCredentialsError,
    )

    if isinstance(error, Boto3Error) and isinstance(error.__context__, ClientError):
        error = error.__context__
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        return _ADVICE.get(
            code, f"the store answered {code}: {error.response.get('Error', {}).get('Message', '')}"
        )
    if isinstance(error, NoCredentialsError):
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and S3_ENDPOINT)"
    if isinstance(error, EndpointConnectionError):
        endpoint = os.environ.get("S3_ENDPOINT", "AWS")
        return (
            f"no object store answers at {endpoint}: start it (make services-up),"
            " or correct S3_ENDPOINT"
        )
    if isinstance(error, BotoCoreError | Boto3Error):
        return str(error)
    return None
