"""The client: images in, embeddings out, over gRPC from one Triton server or several.

::

    from plsc.client import Client

    with Client.connect("127.0.0.1:8001") as client:
        embeddings = client.encode(["a.jpg", "b.jpg"])            # float32 [2, D], length 1
        similarity, is_same = client.verify("a.jpg", "b.jpg")
"""

from plsc.client.connection import Client
from plsc.client.images import Image
from plsc.client.transport import CANDIDATE_SUFFIX, GrpcTransport, ServedModel, Transport

__all__ = ["CANDIDATE_SUFFIX", "Client", "GrpcTransport", "Image", "ServedModel", "Transport"]
