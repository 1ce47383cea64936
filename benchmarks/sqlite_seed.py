"""The shuffle of PLSC v0.2.0 (``tools/process_base64_files.py``) stated anew, to be measured.

Its algorithm: every row goes into one SQLite table under a running number, in one transaction; the
list of all numbers is shuffled in memory; then row after row is looked up in that order and
written, in equal shares, to as many files as there are ranks, the first rows of the order once
more where the last share is not full. ``INT PRIMARY KEY`` is kept: only ``INTEGER PRIMARY KEY``
would be SQLite's row number, so that each look-up walks two trees. No image is looked at.

``shuffle`` also keeps what makes the tool slower than its algorithm: it pastes values into the text
of each statement, and gives a line, rather than a list of lines, to ``writelines``, which then
writes it character by character (most of its CPU time). With ``is_mended`` it does neither. In both
forms the seed is given, and the input stays.
"""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

__all__ = ["NUM_RANKS", "shuffle"]

NUM_RANKS = 8
_TABLE = (
    "CREATE TABLE DATASET (ID INT PRIMARY KEY NOT NULL, DATA TEXT NOT NULL, LABEL INT NOT NULL)"
)


def shuffle(
    data: Path, out: Path, *, is_mended: bool = False, num_ranks: int = NUM_RANKS, seed: int = 0
) -> int:
    """Shuffle the rows ``base64 TAB label`` of the parts in ``data`` into files in ``out``.

    Args:
        data: Folder with ``file_list.txt`` and the parts that it names; their content is trusted,
            because the tool pastes it into its statements.
        out: Folder for the database (about as large as the input) and ``base64_rank_<n>``.
        is_mended: Whether to bind values, and to write whole lines.
        num_ranks: Number of files.
        seed: Of the order.

    Returns:
        Number of rows written: the least multiple of ``num_ranks`` that holds all.
    """
    out.mkdir(parents=True, exist_ok=True)
    database = out / "rows.sqlite3"
    connection = sqlite3.connect(database)
    try:
        count = _insert_all(connection, data, _insert_bound if is_mended else _insert_pasted)
        order = list(range(count))
        random.Random(seed).shuffle(order)
        share = -(-count // num_ranks)
        order += order[: share * num_ranks - count]
        write = _write_mended if is_mended else _write
        for rank in range(num_ranks):
            path = out / f"base64_rank_{rank}"
            write(connection, order[rank * share : (rank + 1) * share], path)
    finally:
        connection.close()
        database.unlink()
    return len(order)


def _insert_all(
    connection: sqlite3.Connection,
    data: Path,
    insert: Callable[[sqlite3.Connection, int, str, int], object],
) -> int:
    connection.execute(_TABLE)
    count = 0
    for name in (data / "file_list.txt").read_text().split():
        with (data / name).open(encoding="utf-8") as part:
            for line in part:
                image, label = line.strip().split("\t")
                insert(connection, count, image, int(label))
                count += 1
    connection.commit()
    return count


def _insert_pasted(connection: sqlite3.Connection, number: int, image: str, label: int) -> object:
    return connection.execute(
        f"INSERT INTO DATASET (ID, DATA, LABEL) VALUES ({number}, '{image}', {label})"  # noqa: S608
    )


def _insert_bound(connection: sqlite3.Connection, number: int, image: str, label: int) -> object:
    return connection.execute(
        "INSERT INTO DATASET (ID, DATA, LABEL) VALUES (?, ?, ?)", (number, image, label)
    )


def _write(connection: sqlite3.Connection, order: list[int], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in order:
            query = f"SELECT DATA, LABEL FROM DATASET WHERE ID = {number}"  # noqa: S608
            for image, label in connection.execute(query):
                line = f"{image}\t{label}\n"
                file.writelines(line)  # a string is an iterable of characters


def _write_mended(connection: sqlite3.Connection, order: list[int], path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in order:
            found = connection.execute("SELECT DATA, LABEL FROM DATASET WHERE ID = ?", (number,))
            for image, label in found:
                file.write(f"{image}\t{label}\n")
