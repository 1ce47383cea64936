"""Writers of every input layout, and how tests read an input: through items, as workers do."""

import io
import struct
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from plsc.conf.schema import ColumnOrder, InputLayout, LabelKind, PipelineConfig
from plsc.preprocess.inputs import Input, Item, Judge, Row, read
from plsc.preprocess.inputs.finding import find
from tests.preprocess.rows import SIZE, image, settings

Sample = tuple[bytes, int | str]

MAGIC = b"\x0a\x23\xd7\xce"


def samples(count: int = 12, num_classes: int = 4) -> list[Sample]:
    """Return images that all differ, and their integer labels."""
    return [(image(number), number % num_classes) for number in range(count)]


@cache
def _settings() -> PipelineConfig:
    return settings(Path("/nowhere"))


def found(
    folder: Path | str,
    *,
    layout: str = "auto",
    labels: str = "auto",
    column_order: str = "auto",
    **preprocess: str | int,
) -> Input:
    """Return what lies in ``folder``, whose uri may be written in any way."""
    config = _settings()
    preprocess_config = replace(
        config.preprocess,
        layout=InputLayout(layout),
        labels=LabelKind(labels),
        column_order=ColumnOrder(column_order),
        **preprocess,
    )
    return find(replace(config, data_uri=str(folder), preprocess=preprocess_config))


def judge(source: Input | None = None, **changes: object) -> Judge:
    """Return the judge for ``source``."""
    is_named = source is not None and source.is_named
    return Judge(**({"image_size": SIZE, "is_named": is_named} | changes))


def rows_of(source: Input, item_bytes: int = 1 << 40, **changes: object) -> list[Row]:
    """Return all rows, of items that went through JSON as they do on their way to workers."""
    rows = []
    for item in source.items(item_bytes):
        sent = Item.model_validate_json(item.model_dump_json())
        read_rows = list(read(sent, judge(source, **changes)))
        assert [row.number for row in read_rows] == list(range(1, len(read_rows) + 1))
        rows += read_rows
    return rows


def samples_in(rows: Iterable[Row]) -> list[Sample]:
    """Return image and label of the good rows, in order."""
    return [(row.image, row.label) for row in rows if row.form]


def reasons_in(rows: Iterable[Row]) -> list[str]:
    """Return why the bad rows are bad, in order."""
    return [row.bad.reason.value for row in rows if row.bad is not None]


def write_label_txt(folder: Path, some: Iterable[Sample]) -> Path:
    """Write image files and ``label.txt``."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, (content, label) in enumerate(some):
        (folder / "images" / f"{number:08}.jpg").write_bytes(content)
        lines.append(f"images/{number:08}.jpg {label}\n")
    (folder / "label.txt").write_text("".join(lines))
    return folder


def write_class_folders(folder: Path, some: Iterable[Sample]) -> Path:
    """Write a folder of images for each class."""
    for number, (content, label) in enumerate(some):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{number:04}.jpg").write_bytes(content)
    return folder


def packed(
    content: bytes, label: float | list[float], *, key: int = 0, flag: int | None = None
) -> bytes:
    """Return the content of an image record, as MXNet packs it."""
    labels = label if isinstance(label, list) else []
    first = 0.0 if isinstance(label, list) else label
    count = len(labels) if flag is None else flag
    return (
        struct.pack("<IfQQ", count, first, key, 0)
        + struct.pack(f"<{len(labels)}f", *labels)
        + content
    )


def chunked(content: bytes) -> bytes:
    """Return a record as dmlc-core writes it: cut at every aligned magic, which is left out."""
    cuts = [at for at in range(0, len(content) - 3, 4) if content[at : at + 4] == MAGIC]
    starts = [0, *(at + 4 for at in cuts)]
    pieces = [content[a:b] for a, b in zip(starts, [*cuts, len(content)], strict=True)]
    written = b""
    for number, piece in enumerate(pieces):
        kind = 0 if len(pieces) == 1 else 1 if not number else 3 if number == len(cuts) else 2
        written += MAGIC + struct.pack("<I", kind << 29 | len(piece)) + piece
        written += b"\0" * (-len(piece) % 4)
    return written


def write_rec(
    folder: Path,
    some: Iterable[Sample],
    *,
    name: str = "train",
    has_header: bool = True,
    has_index: bool = True,
    identities: int = 0,
    extra: Iterable[bytes] = (),
) -> Path:
    """Write a set as InsightFace does: header, images (and ``extra``), identities; its index."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [*(packed(content, float(label), key=1) for content, label in some), *extra]
    first = 1 if has_header else 0
    if has_header:
        ends = [float(len(records) + 1), float(len(records) + 1 + identities)]
        records = [packed(b"", ends), *records, *[packed(b"", [1.0, 2.0])] * identities]
    content, lines = b"", []
    for key, record in enumerate(records):
        lines.append(f"{key if first else key + 5}\t{len(content)}\n")
        content += chunked(record)
    (folder / f"{name}.rec").write_bytes(content)
    if has_index:
        (folder / f"{name}.idx").write_text("".join(reversed(lines)))
    return folder


def table_of(some: Iterable[Sample], *, is_struct: bool = False) -> pa.Table:
    """Return images and labels as a table."""
    images, labels = zip(*some, strict=True)
    column = [{"bytes": one, "path": "x.jpg"} for one in images] if is_struct else list(images)
    return pa.table({"image": column, "label": list(labels)})


def write_table(path: Path, table: pa.Table, *, rows: int = 5, is_stream: bool = False) -> Path:
    """Write a table in pieces of ``rows``, in the format that the name's end tells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows, compression="none", use_dictionary=False)
        return path.parent
    new = pa.ipc.new_stream if is_stream else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path.parent


def tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a tar of files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, file in files:
            member = tarfile.TarInfo(name)
            member.size = len(file)
            tar.addfile(member, io.BytesIO(file))
    return content.getvalue()


def tar_files(some: Iterable[Sample]) -> list[tuple[str, bytes]]:
    """Return the names and contents of WebDataset's files."""
    return [
        pair
        for number, (content, label) in enumerate(some)
        for pair in (
            (f"set/{number:06}.jpg", content),
            (f"set/{number:06}.cls", str(label).encode()),
            (f"set/{number:06}.json", b"{}"),
        )
    ]


def write_tar(folder: Path, some: Iterable[Sample], name: str = "part-0.tar") -> Path:
    """Write a WebDataset tar."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(tar_of(tar_files(some)))
    return folder
