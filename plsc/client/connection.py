"""Client: encode and verify images by a served model, over one server or several with fail-over."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

from plsc.client.images import Image, to_pixels
from plsc.client.transport import CANDIDATE_SUFFIX, GrpcTransport, ServedModel, Transport
from plsc.errors import BadResponse, ServerUnavailable, ServingError

__all__ = ["Client"]

_T = TypeVar("_T")
_ATTEMPTS = 5
"""How often a call starts over because the model changed under it."""


class Client:
    """A connection to a served model. May be used by several threads.

    A call is answered by one server and one version of the model as a whole: when the version
    changes in the middle of it, it starts over, for embeddings of two versions cannot be compared.
    """

    def __init__(self, transports: Sequence[Transport], *, model: str = "") -> None:
        """Use ``transports``; see ``connect`` for the common way."""
        self._transports = list(transports)
        self._turn = itertools.count()
        self._is_closed = False
        self._served: dict[str, ServedModel] = {}
        self._model = model or self._ask(_only_model)
        self._ask(self._describe)

    @classmethod
    def connect(cls, servers: str, *, model: str = "", timeout_s: float = 30.0) -> Self:
        """Return a client of one server or several.

        Args:
            servers: gRPC addresses, ``"host:port"`` or ``"host:port,host:port"``: calls go round,
                and a server that does not answer is passed over.
            model: The model's name; may be left out where a server holds exactly one.
            timeout_s: Longest wait for an answer to one request.

        Raises:
            ServerUnavailable: If no server answers, or none holds the model.
            ServingError: If ``model`` is left out and there is not exactly one.
            ValueError: If ``servers`` names none.
        """
        addresses = [address.strip() for address in servers.split(",") if address.strip()]
        if not addresses:
            raise ValueError(f"expected host:port or host:port,host:port, found {servers!r}")
        transports = [GrpcTransport(address, timeout_s=timeout_s) for address in addresses]
        try:
            return cls(transports, model=model)
        except BaseException:
            for transport in transports:
                transport.close()
            raise

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    def encode(self, images: Sequence[Image] | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the embeddings of ``images``, in their order: float32 [n, D], each of length 1.

        Args:
            images: Encoded images, paths, or pixels (uint8 [height, width, 3], RGB), of any size
                and number.

        Raises:
            NotAnImageError: If one is no image; nothing is sent then.
            ServerUnavailable: If no server answers.
            BadResponse: If an answer is not embeddings of the asked shape.
            ServingError: If the server refuses.
            OSError: If a path cannot be read.
        """
        return self._encode(images)[0]

    def verify(self, a: Image, b: Image, *, threshold: float | None = None) -> tuple[float, bool]:
        """Return the cosine similarity of two images, and whether they show the same class.

        Args:
            a: One image.
            b: The other.
            threshold: Similarity from which they count as the same; None: the one that was measured
                for the model.

        Raises:
            ServingError: As ``encode``, and if no threshold is given and none was measured.
        """
        embeddings, served = self._encode([a, b])
        limit = served.threshold if threshold is None else threshold
        if limit is None:
            raise ServingError(
                f"the model {served.name!r} is served without a threshold: give one, threshold=0.3"
            )
        similarity = float(embeddings[0] @ embeddings[1])
        return similarity, similarity > limit

    def describe(self) -> ServedModel:
        """Return what a server says about the model now.

        Raises:
            ServerUnavailable: If no server answers.
        """
        return self._ask(self._describe)

    def close(self) -> None:
        """Let go of all connections; the client cannot be used afterwards. May be called again."""
        self._is_closed = True
        for transport in self._transports:
            transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encode(
        self, images: Sequence[Image] | npt.NDArray[np.uint8]
    ) -> tuple[npt.NDArray[np.float32], ServedModel]:
        pixels: dict[int, npt.NDArray[np.uint8]] = {}

        def sized(image_size: int) -> npt.NDArray[np.uint8]:
            if image_size not in pixels:
                pixels[image_size] = to_pixels(images, image_size)
            return pixels[image_size]

        return self._ask(lambda transport: self._encode_by(transport, sized))

    def _encode_by(
        self, transport: Transport, sized: Callable[[int], npt.NDArray[np.uint8]]
    ) -> tuple[npt.NDArray[np.float32], ServedModel]:
        served = self._served.get(transport.address) or self._describe(transport)
        for _ in range(_ATTEMPTS):
            pixels = sized(served.image_size)
            try:
                answers = [_infer(transport, served, chunk) for chunk in _chunks(pixels, served)]
            except ServerUnavailable:
                raise
            except ServingError:
                before, served = served, self._describe(transport)
                if served == before:
                    raise
                continue
            versions = {version for _, version in answers}
            if len(versions) <= 1 and versions <= {served.version or next(iter(versions), "")}:
                found = [embeddings for embeddings, _ in answers]
                return np.concatenate(
                    [np.empty((0, served.embedding_size), np.float32), *found]
                ), served
            served = self._describe(transport)
        raise ServingError(
            f"{transport.address}: {self._model!r} changed {_ATTEMPTS} times in one call"
        )

    def _describe(self, transport: Transport) -> ServedModel:
        served = transport.describe(self._model)
        self._served[transport.address] = served
        return served

    def _ask(self, question: Callable[[Transport], _T]) -> _T:
        """Return the first answer, beginning with the server whose turn it is."""
        if self._is_closed:
            raise ServingError("the client is closed: connect again")
        first = next(self._turn)
        reasons = []
        for number in range(len(self._transports)):
            transport = self._transports[(first + number) % len(self._transports)]
            try:
                return question(transport)
            except ServerUnavailable as error:
                self._served.pop(transport.address, None)
                reasons.append(error)
        if len(reasons) == 1:
            raise reasons[0]
        raise ServerUnavailable(
            "no server answers:\n" + "\n".join(f"  {reason}" for reason in reasons)
        )


def _only_model(transport: Transport) -> str:
    models = [name for name in transport.models() if not name.endswith(CANDIDATE_SUFFIX)]
    if not models:
        raise ServerUnavailable(
            f"the server at {transport.address} holds no model: run deploy first"
        )
    if len(models) > 1:
        raise ServingError(
            f"the server at {transport.address} holds {', '.join(models)}: say which (model=...)"
        )
    return models[0]


def _chunks(pixels: npt.NDArray[np.uint8], served: ServedModel) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(pixels), served.max_batch_size):
        yield pixels[start : start + served.max_batch_size]


def _infer(
    transport: Transport, served: ServedModel, images: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.float32], str]:
    embeddings, version = transport.infer(served, images)
    expected = (len(images), served.embedding_size)
    where = f"{transport.address}: {served.name!r}, version {version},"
    if embeddings.shape != expected or embeddings.dtype != np.float32:
        raise BadResponse(
            f"{where} should answer float32 {list(expected)},"
            f" answered {embeddings.dtype} {list(embeddings.shape)}"
        )
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3):
        raise BadResponse(f"{where} answered embeddings that are not of length 1")
    return embeddings, version
