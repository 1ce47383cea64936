"""Where the preprocess benchmark works: a folder of its own, and an S3 server if asked for one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from benchmarks.base64_parts import Parts, write_parts

__all__ = ["Workplace", "workplace"]

_BUCKET = "s3://plsc"


class Workplace:
    """Where the input lies and the output goes, on this disk or in an S3 server of our own."""

    def __init__(self, folder: Path, *, is_s3: bool) -> None:
        """Take an empty folder, and whether ``ours`` uses an S3 server that runs."""
        self.folder = folder
        self.is_s3 = is_s3
        self.data = folder / "data"
        self.out = folder / "out"

    def uris(self, variant: str) -> tuple[str, str]:
        """Return where ``variant`` reads and where it writes."""
        if self.is_s3 and variant == "ours":
            return f"{_BUCKET}/data", f"{_BUCKET}/store"
        return str(self.data), str(self.out)

    @contextmanager
    def holding(self, parts: Parts) -> Iterator[list[Path]]:
        """Write the parts, and remove them at the end."""
        try:
            paths = write_parts(self.data, parts)
            if self.is_s3:
                from plsc import storage

                for path in sorted(self.data.iterdir()):
                    storage.upload(path, f"{_BUCKET}/data/{path.name}")
            yield paths
        finally:
            shutil.rmtree(self.data, ignore_errors=True)
            self._remove(f"{_BUCKET}/data")

    def clear(self) -> None:
        """Remove what a variant wrote, and let the disk come to rest."""
        shutil.rmtree(self.out, ignore_errors=True)
        self._remove(f"{_BUCKET}/store")
        self.out.mkdir()
        os.sync()

    def _remove(self, prefix_uri: str) -> None:
        if self.is_s3:
            from plsc import storage

            storage.delete_prefix(prefix_uri)


@contextmanager
def workplace(parent: Path | None, *, is_s3: bool) -> Iterator[Workplace]:
    """Give a new folder to work in, with an S3 server if asked; both are gone at the end.

    Args:
        parent: Where the folder is made (itself made if it is not there); None: with the system's
            temporary files.
        is_s3: Whether to run a server, which keeps its objects in the folder too.
    """
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="plsc-benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        with _object_store(folder / "services") if is_s3 else nullcontext():
            yield Workplace(folder, is_s3=is_s3)


@contextmanager
def _object_store(state_path: Path) -> Iterator[None]:
    """Run an S3 server that this process and its children use."""
    from pipelines.services import down, up
    from plsc.storage import s3

    before = os.environ.copy()
    try:
        os.environ.update(up(state_path, with_triton=False).environment())
        s3.client.cache_clear()
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        s3.client.cache_clear()
        down(state_path)
