"""``python -m plsc.client encode|verify``: the client from the command line."""

import argparse
import json
import os
import sys

import numpy as np

from plsc.client import Client
from plsc.errors import PlscError
from plsc.transforms import NotAnImageError


def main() -> int:
    """Do what the command line says; return the exit status."""
    arguments = _parser().parse_args()
    if not arguments.server:
        print(
            "error: which server? Give --server HOST:PORT, or set PLSC_TRITON_URL", file=sys.stderr
        )
        return 2
    try:
        with Client.connect(
            arguments.server, model=arguments.model, timeout_s=arguments.timeout_s
        ) as client:
            return (
                _encode(client, arguments)
                if arguments.command == "encode"
                else _verify(client, arguments)
            )
    except PlscError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except (NotAnImageError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--server", default=os.environ.get("PLSC_TRITON_URL", ""), metavar="HOST:PORT[,HOST:PORT]"
    )
    shared.add_argument("--model", default="", help="may be left out where the server holds one")
    shared.add_argument(
        "--timeout-s", type=float, default=30.0, help="longest wait for an answer (%(default)s)"
    )
    shared.add_argument("--json", action="store_true", help="everything, for programs")
    parser = argparse.ArgumentParser(
        prog="python -m plsc.client", description="Ask a served model."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    encode = commands.add_parser(
        "encode", parents=[shared], help="print the embedding of each image"
    )
    encode.add_argument("images", nargs="+", metavar="IMAGE")
    verify = commands.add_parser(
        "verify", parents=[shared], help="tell whether two images show the same class"
    )
    verify.add_argument("images", nargs=2, metavar="IMAGE")
    verify.add_argument(
        "--threshold", type=float, help="similarity from which they do (default: as measured)"
    )
    return parser


def _encode(client: Client, arguments: argparse.Namespace) -> int:
    embeddings = client.encode(arguments.images)
    pairs = list(zip(arguments.images, embeddings, strict=True))
    if arguments.json:
        rows = [{"image": name, "embedding": embedding.tolist()} for name, embedding in pairs]
        print(json.dumps({"model": client.model, "embeddings": rows}))
        return 0
    width = max(len(name) for name in arguments.images)
    for name, embedding in pairs:
        first = " ".join(f"{value:+.4f}" for value in embedding[:6])
        length = np.linalg.norm(embedding)
        print(f"{name:{width}}  {len(embedding)} dimensions, length {length:.4f}: {first} ...")
    return 0


def _verify(client: Client, arguments: argparse.Namespace) -> int:
    similarity, is_same = client.verify(*arguments.images, threshold=arguments.threshold)
    threshold = client.describe().threshold if arguments.threshold is None else arguments.threshold
    if arguments.json:
        found = {
            "model": client.model,
            "similarity": similarity,
            "threshold": threshold,
            "same": is_same,
        }
        print(json.dumps(found))
        return 0
    verdict = "the same" if is_same else "different"
    print(f"{verdict}: similarity {similarity:+.4f}, threshold {threshold:+.4f} ({client.model})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
