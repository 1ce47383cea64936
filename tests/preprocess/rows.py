"""Small real inputs for preprocess, JPEGs that all differ, and what came out of them."""

import io
from functools import cache
from pathlib import Path

from PIL import Image

from plsc.artifacts.records import Record, to_line
from plsc.artifacts.shards import Shard, ShardReader, ShardSet
from plsc.conf import compose
from plsc.conf.schema import PipelineConfig

SIZE = 16


@cache
def image(number: int = 0, *, size: int = SIZE, form: str = "JPEG") -> bytes:
    """Return an image; JPEGs of different numbers differ (by their comment)."""
    pixels = Image.new("RGB", (size, size), (number % 256, 80, 128))
    content = io.BytesIO()
    pixels.save(content, form, **({"comment": f"{number}"} if form == "JPEG" else {}))
    return content.getvalue()


def line(number: int, label: int) -> bytes:
    """Return a good row, image first."""
    return to_line(Record(image(number), label))


def swapped(row: bytes) -> bytes:
    """Return the row with its columns in the other order."""
    first, second = row.rstrip(b"\n").split(b"\t")
    return second + b"\t" + first + b"\n"


def write_parts(folder: Path, parts: dict[str, list[bytes]]) -> Path:
    """Write parts of rows and their list, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        (folder / name).write_bytes(b"".join(rows))
    (folder / "file_list.txt").write_text("".join(f"{name}\n" for name in parts))
    return folder


def good_parts(
    num_parts: int = 3, num_rows: int = 20, num_classes: int = 5
) -> dict[str, list[bytes]]:
    """Return parts in which every row is good and every image different."""
    return {
        f"part-{part}.tsv": [
            line(number, number % num_classes)
            for number in range(part * num_rows, (part + 1) * num_rows)
        ]
        for part in range(num_parts)
    }


def settings(
    folder: Path, *overrides: str, data: str = "data", run_id: str = "run"
) -> PipelineConfig:
    """Return a configuration with input and store below ``folder``."""
    return compose(
        "tiny",
        f"store_uri={folder}/store",
        f"data_uri={folder}/{data}",
        f"image_size={SIZE}",
        f"run_id={run_id}",
        "preprocess.samples_per_shard=16",
        "preprocess.workers=1",
        *overrides,
    )


def samples_of(shards: list[Shard]) -> list[tuple[bytes, int]]:
    """Return all samples, shard by shard, row by row."""
    found = []
    for shard in shards:
        reader = ShardReader(Path(shard.uri))
        found += [(bytes(reader.image(row)), reader.label(row)) for row in range(len(reader))]
    return found


def digests_of(dataset: ShardSet) -> list[str]:
    """Return the digest of every shard."""
    return [shard.sha256 for shard in dataset.shards]
