"""Shards brought to this machine ahead of their use, window by window, by a thread."""

import functools
import logging
import math
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from plsc.artifacts.shards import Shard, ShardReader, ShardSet
from plsc.errors import PlscError, ShardError, StorageError
from plsc.train.loader.cache import HeldShard, NoRoomError, ShardCache, StoppedError
from plsc.train.loader.sampler import Sampler

__all__ = ["Prefetcher"]

log = logging.getLogger(__name__)

_PAUSE_S = 0.05
"""How long to wait for what another process fetches, or may let go."""
_PATIENCE_S = 10.0
"""How long training waits for other processes to let go of the room that it needs."""
_GRACE_S = 3.0
"""How long the end waits for a request; one that stalls ends when it does, or with the process."""
_SAY_EVERY_S = 30.0
_WARN_EVERY_S = 600.0


class Prefetcher:
    """Keeps the shards of the windows that are in use, and of the next one, in a cache.

    A context manager; the thread lives in its block. Methods are for one other thread.
    """

    def __init__(
        self,
        dataset: ShardSet,
        sampler: Sampler,
        cache: ShardCache,
        steps: range,
        *,
        turn: float,
        stop: threading.Event,
    ) -> None:
        """Prepare to fetch what ``steps`` need.

        Args:
            dataset: The shards.
            sampler: Their order.
            cache: Where they go.
            steps: The steps to come, at least one.
            turn: 0..1, where in a window to begin: that processes which share the cache fetch
                different shards.
            stop: Ends the thread, and waiting, when any thread sets it.
        """
        self.waited_s = 0.0
        """Seconds in which training had to wait for shards."""
        self._dataset = dataset
        self._sampler = sampler
        self._cache = cache
        self._turn = turn
        self._first = sampler.windows(steps.start).start
        self._end = sampler.windows(steps.stop - 1).stop
        self._held: dict[int, HeldShard] = {}
        self._complete: set[int] = set()
        self._fetched_bytes = 0
        self._said = -math.inf
        self._warned = -math.inf
        self._is_short = False
        """Whether the limit leaves no room for what is to be fetched."""
        self._short_s = 0.0
        """For how long training waited for that; each window passed halves it."""
        self._beyond_until = -1
        """The last window for which this run goes beyond the limit without waiting."""
        self._urgent_since: float | None = None
        self._error: BaseException | None = None
        self._stop = stop
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="shards", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_GRACE_S)
        with self._changed:
            for shard in list(self._held):
                self._held.pop(shard).release()

    def is_ready(self, step: int) -> bool:
        """Return whether all shards that ``step`` reads are here.

        Raises:
            StorageError, ShardError: What went wrong in the thread.
        """
        with self._changed:
            if self._error:
                raise self._error
            for window in self._sampler.windows(step):
                if window not in self._complete:
                    if any(shard not in self._held for shard in self._sampler.shards(window)):
                        return False
                    self._complete.add(window)
            return True

    def wait(self, step: int) -> None:
        """Return when all shards that ``step`` reads are here.

        Raises:
            StorageError, ShardError: What went wrong in the thread.
            StoppedError: If it was told to stop.
        """
        if self.is_ready(step):
            return
        begin, had_bytes = time.monotonic(), self._fetched_bytes
        before_s, self._urgent_since = self.waited_s, begin
        while not self.is_ready(step):
            if self._stop.is_set():
                raise StoppedError
            with self._changed:
                self._changed.wait(_PAUSE_S)
            now = time.monotonic()
            waited_s, self.waited_s = self.waited_s, before_s + now - begin
            if self._is_short:
                self._short_s += self.waited_s - waited_s
            if now - begin > 1 and now - self._said > _SAY_EVERY_S:
                self._said = now
                rate = (self._fetched_bytes - had_bytes) / 1e6 / (now - begin)
                log.info(
                    "step %d waits for shards, which come at %.0f MB/s; waited %.0f s so far",
                    step, rate, self.waited_s,
                )  # fmt: skip
        self._urgent_since = None

    def forget_before(self, first: int) -> None:
        """Let go of what no step from window ``first`` on reads soon, and fetch what comes next."""
        with self._changed:
            self._first = first
            self._short_s /= 2
            self._complete = {window for window in self._complete if window >= first}
            wanted = {shard for window in self._wanted() for shard in self._sampler.shards(window)}
            for shard in [shard for shard in self._held if shard not in wanted]:
                self._held.pop(shard).release()
            self._changed.notify_all()

    def lost(self, shard: int) -> None:
        """Fetch ``shard`` again: its file is gone."""
        log.warning("shard %d vanished from %s: it is fetched again", shard, self._cache.folder)
        with self._changed:
            self._complete.clear()
            if shard in self._held:
                self._held.pop(shard).release()
            self._changed.notify_all()

    def _wanted(self) -> range:
        return range(self._first, min(self._first + self._sampler.windows_at_once, self._end))

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                is_complete = self._bring_missing()
                with self._changed:
                    if not is_complete:
                        self._changed.wait(_PAUSE_S)
                    elif not self._stop.is_set() and not self._missing():
                        self._changed.wait()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001  raised where training waits
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _missing(self) -> list[int]:
        """Return the shards to fetch now, of the first window that is not complete."""
        with self._changed:
            for window in self._wanted():
                shards = self._sampler.shards(window)
                start = int(self._turn * len(shards))
                missing = [s for s in shards[start:] + shards[:start] if s not in self._held]
                if missing:
                    return missing
        return []

    def _bring_missing(self) -> bool:
        """Fetch what can be fetched now and return whether that was all of it."""
        try:
            brought = [self._bring(shard) for shard in self._missing()]
        except NoRoomError as error:
            if self._is_stuck and not error.is_limit:
                raise self._refused(error) from error
            return False
        return all(brought)

    def _bring(self, number: int) -> bool:
        """Have the shard here, or return False: another process is just fetching it."""
        if self._stop.is_set():
            raise StoppedError
        shard = self._dataset.shards[number]
        held = self._cache.held(shard)
        if held is None:
            held = self._fetched(shard)
            if held is None:
                return False
            self._fetched_bytes += shard.size_bytes
        try:
            self._check(number, held)
        except PlscError:
            held.release()
            raise
        with self._changed:
            if self._stop.is_set():  # and maybe nobody is left who would release it
                held.release()
                raise StoppedError
            self._held[number] = held
            self._changed.notify_all()
        return True

    def _fetched(self, shard: Shard) -> HeldShard | None:
        """Fetch ``shard``, within the limit or, if training cannot go on otherwise, beyond it.

        A run that had to go beyond it in one window does not wait again in the next.
        """
        fetch = functools.partial(
            self._cache.fetched, shard, self._order, is_stopped=self._stop.is_set
        )
        try:
            held = fetch()
        except NoRoomError as error:
            self._is_short = error.is_limit
            is_beyond = self._short_s > _PATIENCE_S or self._first <= self._beyond_until
            if not (error.is_limit and is_beyond):
                raise
            self._beyond_until = self._first + 1
        else:
            self._is_short = False
            return held
        now = time.monotonic()
        if now - self._warned > _WARN_EVERY_S:
            self._warned = now
            log.warning(
                "%s is full of what other runs use: this one goes beyond the limit of"
                " train.loader.cache_gib",
                self._cache.folder,
            )
        return fetch(is_limited=False)

    def _check(self, number: int, held: HeldShard) -> None:
        """Refuse labels that are no class, before they end a step of some other rank."""
        shard, num_classes = self._dataset.shards[number], self._dataset.num_classes
        try:
            labels = ShardReader(held.path).labels
        except ShardError as error:
            raise ShardError(
                f"{shard.uri} has the digest that the index says, but is no shard that can be"
                f" read: run preprocess again ({error})"
            ) from error
        if len(labels) != shard.num_samples:
            raise ShardError(
                f"{shard.uri} has {len(labels)} samples, the index says {shard.num_samples}:"
                " run preprocess again"
            )
        if not 0 <= labels.min() <= labels.max() < num_classes:
            raise ShardError(
                f"{shard.uri} holds labels {labels.min()}..{labels.max()}, but the index says that"
                f" there are {num_classes} classes, 0..{num_classes - 1}: run preprocess again"
            )

    @property
    def _is_stuck(self) -> bool:
        """Whether training has waited for so long that what others hold will not be let go."""
        since = self._urgent_since
        return since is not None and time.monotonic() - since > _PATIENCE_S

    def _order(self) -> Sequence[str]:
        shards = self._dataset.shards
        return [shards[number].sha256 for number in self._sampler.shards_by_need(self._first)]

    def _refused(self, error: NoRoomError) -> StorageError:
        windows = self._wanted()
        needed = {shard for window in windows for shard in self._sampler.shards(window)}
        size_gib = sum(self._dataset.shards[shard].size_bytes for shard in needed) / 2**30
        return StorageError(
            f"{self._cache.folder}: {error}, and nothing there can be removed: training needs"
            f" {size_gib:.3g} GiB for {len(needed)} shards at once: make room, set"
            " train.loader.cache_path to another disk, or lower train.loader.window_shards"
        )
