"""How often and how long a store that fails for a while is asked again.

Every S3 call, and every stream that breaks, keeps to the same two numbers. botocore's own
retries are not used: their pauses end within a second, and their quota, which all threads share,
lets the second fault of a bad minute fail where the first one was retried.
"""

import math
import os
import random
from typing import TYPE_CHECKING, Any

from plsc.errors import ConfigError

if TYPE_CHECKING:
    from botocore.client import BaseClient

__all__ = ["TRIES", "broken_connections", "install", "pause_s", "timeout_s"]

TRIES = 6
"""Times that a call is made, or a stream breaks at the same place, before that is an error."""

PAUSE_S = 0.2
"""The first pause; each further one is twice as long."""

_LONGEST_PAUSE_S = 20.0
_BUSY_FACTOR = 4  # a store that says it has too much to do is given more time
_BUSY = ("SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "429", "503")
_FAILING = (429, 500, 502, 503, 504)
_PASSING = ("RequestTimeout", "RequestTimeTooSkewed", "PriorRequestNotComplete", *_BUSY)


def timeout_s() -> float:
    """Return how long a store may be silent, from ``S3_TIMEOUT_S`` (default 60 seconds).

    Raises:
        ConfigError: If that is no number above 0.
    """
    given = os.environ.get("S3_TIMEOUT_S") or "60"
    try:
        timeout = float(given)
    except ValueError:
        timeout = 0
    if not 0 < timeout < math.inf:
        raise ConfigError(f"S3_TIMEOUT_S={given!r}: expected a number of seconds above 0, as 60")
    return timeout


def pause_s(failures: int, *, busy: bool = False) -> float:
    """Return how long to wait after ``failures`` >= 1 failures in a row, with some chance in it."""
    longest: float = PAUSE_S * 2 ** (failures - 1) * (_BUSY_FACTOR if busy else 1)
    return min(longest, _LONGEST_PAUSE_S) * random.uniform(0.5, 1)  # noqa: S311 (no secret)


def broken_connections() -> tuple[type[Exception], ...]:
    """Return botocore's errors of connections that could not be made, or broke."""
    from botocore.exceptions import ConnectionError, HTTPClientError  # noqa: A004, PLC0415

    return ConnectionError, HTTPClientError


def install(client: "BaseClient") -> None:
    """Let a botocore client ask again as this module says (its own retries must be off)."""
    client.meta.events.register("needs-retry", _delay)  # type: ignore[arg-type]


def _delay(
    *, response: Any, attempts: int, caught_exception: Exception | None, **_: Any
) -> float | None:
    """Answer botocore, after each attempt: seconds to wait before the next one, or None."""
    from botocore.exceptions import SSLError  # noqa: PLC0415

    if attempts >= TRIES:
        return None
    if response is None:
        is_broken = isinstance(caught_exception, broken_connections())
        is_passing = is_broken and not isinstance(caught_exception, SSLError)
        return pause_s(attempts) if is_passing else None
    status, code = response[0].status_code, str(response[1].get("Error", {}).get("Code", ""))
    if status in _FAILING or code in _PASSING:
        return pause_s(attempts, busy=code in _BUSY or status == 429)
    return None
