import gzip
import io
import tarfile

import pyarrow as pa
import pytest

from plsc.errors import RecordError
from plsc.preprocess.inputs import tars
from tests.preprocess.layouts import (
    found,
    reasons_in,
    rows_of,
    samples,
    samples_in,
    tar_files,
    tar_of,
)
from tests.preprocess.rows import image


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


FORMATS = pytest.mark.parametrize(
    ("name", "compress"),
    [("a.tar", bytes), ("a.tar.gz", gzip.compress), ("a.tgz", gzip.compress), ("a.tar.zst", zstd)],
)


def write(folder, content, name="a.tar"):
    (folder / name).write_bytes(content)
    return folder


@FORMATS
def test_tars_plain_and_compressed_are_read_whole(tmp_path, name, compress):
    content = compress(tar_of(tar_files(samples())))
    source = found(write(tmp_path, content, name))
    assert [(item.start, item.stop) for item in source.items(1)] == [(0, len(content))]
    rows = rows_of(source)
    assert samples_in(rows) == samples()
    assert sum(row.size_bytes for row in rows) <= len(content)
    assert {row.form for row in rows} == {"tar"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_of_every_format_are_read(tmp_path, form):
    stems = ["Жук/" + "d" * 80 + "/a", "n" * 90, "x.y/b"]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as tar:
        for number, stem in enumerate(stems):
            for suffix, file in (
                ("left.JPG", b""),
                ("JPG", image(number)),
                ("cls", b"%d\n" % number),
            ):
                member = tarfile.TarInfo(f"./{stem}.{suffix}")
                member.size = len(file)
                tar.addfile(member, io.BytesIO(file))
    rows = rows_of(found(write(tmp_path, content.getvalue())))
    assert samples_in(rows) == [(image(n), n) for n in range(3)]


def test_files_between_samples_do_not_matter_and_folders_and_links_neither(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for kind, name in ((tarfile.DIRTYPE, "set"), (tarfile.SYMTYPE, "set/0.jpg")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            tar.addfile(member)
        for name, file in [("set/._0.jpg", b"x"), ("README", b"x"), *tar_files(samples(2))]:
            member = tarfile.TarInfo(name)
            member.size = len(file)
            tar.addfile(member, io.BytesIO(file))
    rows = rows_of(found(write(tmp_path, content.getvalue())))
    assert samples_in(rows) == samples(2)
    assert reasons_in(rows) == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([("a.jpg", image())], "missing"),
        ([("a.cls", b"1")], "missing"),
        ([("a.jpg", image()), ("a.txt", b"1")], "missing"),
        ([("a.jpg", image()), ("a.png", image()), ("a.cls", b"1")], "missing"),
        ([("a.jpg", image()), ("a.cls", b"1"), ("a.cls", b"2")], "missing"),
        ([("a.jpg", image()), ("a.cls", b"cat")], "label_not_an_integer"),
        ([("a.jpg", image()), ("a.cls", b"1" * 5000)], "label_too_long"),
        ([("a.jpg", b"no image"), ("a.cls", b"1")], "not_an_image"),
        ([("a.jpg", image() * 9), ("a.cls", b"1")], "too_long"),
    ],
)
def test_an_incomplete_or_bad_sample_is_a_bad_row(tmp_path, files, reason, monkeypatch):
    monkeypatch.setattr(tars, "LINE_LIMIT_BYTES", 5 * len(image()))
    names = [("0.jpg", image(1)), ("0.cls", b"5"), *files, ("b.jpg", image(2)), ("b.cls", b"6")]
    rows = rows_of(found(write(tmp_path, tar_of(names))))
    assert reasons_in(rows) == [reason]
    assert samples_in(rows) == [(image(1), 5), (image(2), 6)]
    assert rows[1].beginning == b"a"


def test_names_stand_in_cls_or_txt(tmp_path):
    names = [("a.jpg", image(1)), ("a.cls", b"cat"), ("a.txt", b"a cat that sits\non a mat")]
    names += [("b.jpg", image(2)), ("b.txt", "Жук\n".encode())]
    rows = rows_of(found(write(tmp_path, tar_of(names)), labels="names"))
    assert samples_in(rows) == [(image(1), b"cat"), (image(2), "Жук".encode())]


@FORMATS
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7])
def test_a_tar_that_is_cut_off_is_an_error(tmp_path, name, compress, kept):
    whole = compress(tar_of(tar_files(samples(30))))
    write(tmp_path, whole[: int(len(whole) * kept)], name)
    with pytest.raises(RecordError, match=rf"{name}: expected .*upload it again"):
        rows_of(found(tmp_path))


@pytest.mark.parametrize("member", range(8))
@pytest.mark.parametrize("place", [0, 100, 512])
def test_a_tar_cut_at_or_near_any_header_is_an_error(tmp_path, member, place):
    whole = tar_of(tar_files(samples(4)))
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        at = tar.getmembers()[member].offset + place
    with pytest.raises(RecordError, match=r"a\.tar: expected .* to its end, found after"):
        rows_of(found(write(tmp_path, whole[:at])))


@pytest.mark.parametrize("member", [0, 1, 5])
def test_a_damaged_header_is_an_error_and_not_the_end(tmp_path, member):
    whole = bytearray(tar_of(tar_files(samples(4))))
    with tarfile.open(fileobj=io.BytesIO(bytes(whole))) as tar:
        at = tar.getmembers()[member].offset
    whole[at + 100 : at + 120] = b"\xff" * 20
    with pytest.raises(RecordError, match=r"a\.tar: expected the headers"):
        rows_of(found(write(tmp_path, bytes(whole))))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [8 * 2**30, -512])
def test_a_header_that_claims_to_be_huge_or_negative_is_refused(tmp_path, kind, size):
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, size
    content = header.tobuf(format=tarfile.GNU_FORMAT) + bytes(2048)
    with pytest.raises(RecordError, match=f"a header of {size} bytes"):
        rows_of(found(write(tmp_path, content)))


def test_headers_upon_headers_without_end_are_refused(tmp_path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    content = header.tobuf() * 3000
    with pytest.raises(RecordError, match=r"a\.tar: expected"):
        rows_of(found(write(tmp_path, content)))


def global_header(number: int, size: int) -> bytes:
    """Return a header for all files that follow, of about ``size`` bytes."""
    return tarfile.TarInfo.create_pax_global_header({f"comment{number}": "x" * size})


def test_headers_for_all_files_that_follow_are_few(tmp_path):
    whole = tar_of(tar_files(samples(2)))
    assert samples_in(rows_of(found(write(tmp_path, global_header(0, 900) + whole)))) == samples(2)
    headers = [global_header(number, 200_000) for number in range(9)]
    one_file = tar_of([("x.txt", b"x")])[:1024]
    for between in (b"", one_file):
        content = between.join(headers) + whole
        with pytest.raises(RecordError, match="headers of more than 1048576 bytes together"):
            rows_of(found(write(tmp_path, content)))
