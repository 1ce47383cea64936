"""What the local servers remember over restarts: ``services.json``, private, and its lock."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydantic

from pipelines.services.process import Server, ServicesError

__all__ = ["State", "locked", "write_private"]

_FILE = "services.json"


class State(pydantic.BaseModel):
    """The content of ``services.json``."""

    access_key: str = pydantic.Field(default_factory=lambda: secrets.token_hex(10))
    secret_key: pydantic.SecretStr = pydantic.Field(
        default_factory=lambda: pydantic.SecretStr(secrets.token_urlsafe(30))
    )
    servers: dict[str, Server] = {}

    @pydantic.field_serializer("secret_key", when_used="json")
    def _reveal(self, secret: pydantic.SecretStr) -> str:
        return secret.get_secret_value()

    @classmethod
    def read(cls, state_path: Path) -> "State | None":
        """Return the state below ``state_path``, or None when there is none.

        Raises:
            ServicesError: If the file is damaged.
        """
        path = state_path / _FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except pydantic.ValidationError as error:
            raise ServicesError(
                f"{path} is damaged ({error.error_count()} errors):"
                " stop the servers it named, then remove it"
            ) from error

    def write(self, state_path: Path) -> None:
        """Replace ``services.json`` at one stroke."""
        write_private(state_path / _FILE, self.model_dump_json(indent=1))


def write_private(path: Path, text: str) -> None:
    """Write a file at one stroke; at no moment may anyone but its owner read it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def locked(state_path: Path, *, timeout_s: float = 180.0) -> Iterator[None]:
    """Hold the lock of ``state_path``: one ``up`` or ``down`` at a time.

    Raises:
        ServicesError: If another process holds it for longer than ``timeout_s``.
    """
    state_path.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_s
    with (state_path / "services.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ServicesError(
                        f"another process has been at work on {state_path} for {timeout_s:.0f} s"
                    ) from None
                time.sleep(0.1)
        yield
