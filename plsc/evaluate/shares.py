"""The shares of pods in embedding: whole batches, so that they are cut as one process cuts them."""

import io

import numpy as np
import numpy.typing as npt

from plsc import storage
from plsc.artifacts.index import Value
from plsc.errors import ArtifactError, BenchmarkError
from plsc.verification import benchmark_uri

__all__ = ["Shares", "Version"]


class Version(Value):
    """Which content of a benchmark is meant."""

    size_bytes: int
    etag: str

    @classmethod
    def of(cls, uri: str) -> "Version":
        """Return the version that lies at ``uri``.

        Raises:
            StorageError: If it is missing, or the store cannot be asked.
        """
        info = storage.stat(uri)
        return cls(size_bytes=info.size_bytes, etag=info.etag)


class Shares(Value):
    """What all pods of a job need to know. It lies at ``uri``, and the embeddings beside it."""

    folder_uri: str
    checkpoint: str
    """Index of the checkpoint, as JSON."""
    data_uri: str
    benchmarks: dict[str, Version]
    flip: bool
    batch_size: int
    num_pods: int
    attempt: str
    """Made up when the work begins from nothing; see ``plsc.cluster.indexed_job``."""

    @property
    def uri(self) -> str:
        """Where this document lies."""
        return storage.join(self.folder_uri, "shares.json")

    def rows(self, num_images: int, index: int) -> range:
        """Return which of a benchmark's images the pod of this index embeds, perhaps none."""
        batches = -(-num_images // self.batch_size)
        first, end = (batches * place // self.num_pods for place in (index, index + 1))
        return range(first * self.batch_size, min(end * self.batch_size, num_images))

    def check(self, name: str) -> None:
        """Check that the benchmark ``name`` is still that of the beginning; call it after reading.

        Raises:
            BenchmarkError: If it is another.
            StorageError: If it is gone, or the store cannot be asked.
        """
        uri = benchmark_uri(self.data_uri, name)
        expected, found = self.benchmarks[name], Version.of(uri)
        if found != expected:
            raise BenchmarkError(
                f"{uri}: expected what evaluate began with ({expected}), found {found}: it was"
                " changed meanwhile: run evaluate again"
            )

    def piece_uri(self, name: str, index: int) -> str:
        """Return where the pod of this index writes its embeddings of the benchmark ``name``."""
        return storage.join(self.folder_uri, self.attempt, f"{name}-{index:05d}.npy")

    def write(self, name: str, index: int, embeddings: npt.NDArray[np.float32]) -> None:
        """Write the embeddings of a share, float32 [n, D].

        Raises:
            StorageError: If the store refuses.
        """
        content = io.BytesIO()
        np.save(content, embeddings, allow_pickle=False)
        storage.write_bytes(self.piece_uri(name, index), content.getvalue())

    def gather(self, name: str, num_images: int) -> npt.NDArray[np.float32]:
        """Return the embeddings of all images of the benchmark ``name``, float32 [2n, D].

        Raises:
            StorageError: If a share is missing.
            ArtifactError: If one is not what its pod should have written.
            BenchmarkError: If the benchmark was changed since.
        """
        self.check(name)
        shares = {index: self.rows(num_images, index) for index in range(self.num_pods)}
        pieces = [self._read(name, index, rows) for index, rows in shares.items() if rows]
        return np.concatenate(pieces)

    def _read(self, name: str, index: int, rows: range) -> npt.NDArray[np.float32]:
        uri = self.piece_uri(name, index)
        try:
            piece = np.load(io.BytesIO(storage.read_bytes(uri)), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ArtifactError(
                f"{uri}: expected a .npy file, but {error}: run it again"
            ) from error
        if piece.dtype != np.float32 or piece.ndim != 2 or len(piece) != len(rows):
            raise ArtifactError(
                f"{uri}: expected float32 [{len(rows)}, D], found {piece.dtype}"
                f" {list(piece.shape)}: the benchmark changed meanwhile: run evaluate again"
            )
        return np.asarray(piece, dtype=np.float32)
