import os
import pickle
import struct

import numpy as np
import pytest

from plsc.errors import BenchmarkError, StorageError
from plsc.verification import Benchmark, read_benchmark, write_benchmark

IMAGES = [b"\xff\xd8 first", b"\xff\xd8 second \x00\xe9", b"third", b"fourth"]
IS_SAME = [True, False]


def read(folder, content, **options):
    (folder / "x.bin").write_bytes(content)
    return read_benchmark(str(folder), "x", **options)


def check(benchmark):
    assert benchmark.images == IMAGES
    assert benchmark.is_same.dtype == np.bool_
    assert benchmark.is_same.tolist() == IS_SAME
    assert benchmark.num_pairs == 2


def test_what_is_written_is_read_again(tmp_path):
    write_benchmark(str(tmp_path), Benchmark("x", IMAGES, np.array(IS_SAME)))
    check(read_benchmark(str(tmp_path), "x"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("truths", [list, tuple, np.array, lambda t: [np.bool_(v) for v in t]])
@pytest.mark.parametrize(
    "image",
    [
        bytes,
        lambda content: np.frombuffer(content, np.uint8),
        lambda content: np.array(list(content), np.uint8),
    ],
    ids=["bytes", "view", "array"],
)
def test_every_form_in_the_wild_is_read(tmp_path, protocol, truths, image):
    content = pickle.dumps(([image(i) for i in IMAGES], truths(IS_SAME)), protocol=protocol)
    check(read(tmp_path, content))


def short_binstring(content):
    return b"U" + bytes([len(content)]) + content


def test_a_pickle_of_python_2_is_read(tmp_path):
    """As InsightFace's files are: byte strings of Python 2, protocol 2 and 0."""
    images = b"".join(short_binstring(image) + b"q\x01" for image in IMAGES)
    check(read(tmp_path, b"\x80\x02](" + images + b"e](\x88\x89e\x86q\x02."))
    texts = b"".join(b"S" + repr(image)[1:].encode() + b"\n" for image in IMAGES)
    check(
        read(
            tmp_path,
            b"((l"
            + b"".join(t + b"a" for t in texts.splitlines(keepends=True))
            + b"(lI01\naI00\nat.",
        )
    )


def test_arrays_of_python_2s_numpy_are_read(tmp_path):
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt R"
        b"(K\x01K%c\x85cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89%stb"
    ).replace(b"t R", b"tR")
    images = b"".join(array % (len(image), short_binstring(image)) for image in IMAGES)
    truth = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02b1K\x00K\x01tRU\x01%ctR"
    check(read(tmp_path, b"\x80\x02](" + images + b"e](" + truth % 1 + truth % 0 + b"e\x86."))


class Bomb:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["image", "truth", "whole"])
def test_a_malicious_pickle_never_runs_and_names_what_it_asked_for(tmp_path, protocol, place):
    witness = tmp_path / "witness"
    bomb = Bomb(os.system, f"touch {witness}")
    document = {
        "image": ([bomb, *IMAGES[1:]], IS_SAME),
        "truth": (IMAGES, [bomb, False]),
        "whole": bomb,
    }[place]
    with pytest.raises(
        BenchmarkError, match=r"x\.bin: .*asks for posix\.system, which is not allowed"
    ):
        read(tmp_path, pickle.dumps(document, protocol=protocol))
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1/0'\ntR.",
        b"c__builtin__\neval\n(S'1/0'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__init__\x93.",
        b"cnumpy\nload\n(S'/etc/passwd'\ntR.",
        b"cmxnet.ndarray\nNDArray\n.",
        b"c_codecs\ndecode\n.",
        b"c_codecs\nencode\n(V" + b"A" * 20 + b"\nVzip\ntR.",
        b"Ppersistent\n.",
    ],
)
def test_anything_but_bytes_and_arrays_is_refused(tmp_path, content):
    with pytest.raises(BenchmarkError):
        read(tmp_path, content)


def test_object_arrays_and_arrays_of_other_numbers_are_refused(tmp_path):
    for array in (np.array([b"a", 1], object), np.arange(4), np.zeros((2, 2), np.uint8)):
        with pytest.raises(BenchmarkError, match="array"):
            read(tmp_path, pickle.dumps(([array] * 4, IS_SAME)))


def test_an_array_whose_size_is_forged_is_refused_without_allocating(tmp_path):
    content = pickle.dumps(([np.arange(77, dtype=np.uint8)] * 4, IS_SAME), protocol=2)
    assert content.count(b"KM\x85") == 1
    with pytest.raises(BenchmarkError, match="array"):
        read(tmp_path, content.replace(b"KM\x85", b"\x8a\x06\x00\x00\x00\x00\x00\x10\x85"))


def test_a_huge_memo_place_is_refused_before_memory_is_taken(tmp_path):
    with pytest.raises(BenchmarkError, match="memo place 2147483632"):
        read(tmp_path, b"\x80\x02]r" + struct.pack("<I", 0x7FFFFFF0) + b".")


def test_a_text_that_unpacks_again_and_again_is_refused(tmp_path):
    text = b"X" + struct.pack("<I", 1000) + b"a" * 1000
    again = b"c_codecs\nencode\n(h\x01X\x06\x00\x00\x00latin1tR"
    with pytest.raises(BenchmarkError, match="more bytes than it has"):
        read(tmp_path, b"\x80\x02](" + text + b"q\x01" + again * 100 + b"e.")


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    content = pickle.dumps((IMAGES, IS_SAME), protocol=4)
    for length in range(len(content)):
        with pytest.raises(BenchmarkError, match=r"x\.bin: expected a pickle"):
            read(tmp_path, content[:length])


def test_flipped_bytes_give_a_benchmark_or_a_benchmark_error_and_nothing_else(tmp_path):
    content = pickle.dumps((IMAGES, IS_SAME), protocol=4)
    random = np.random.default_rng(0)
    for _ in range(500):
        broken = bytearray(content)
        broken[random.integers(len(content))] = random.integers(256)
        try:
            assert len(read(tmp_path, bytes(broken)).images) % 2 == 0
        except BenchmarkError:
            continue


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ((IMAGES[:3], IS_SAME), "3 images for 2 pairs"),
        (([], []), "0 images for 0 pairs"),
        ((IMAGES, [True]), "4 images for 1 pairs"),
        ((IMAGES, [True, 2]), "truth value of pair 1"),
        ((IMAGES, [True, None]), "truth value of pair 1"),
        (([*IMAGES[:3], b""], IS_SAME), "image 3"),
        (([*IMAGES[:3], "text"], IS_SAME), "image 3"),
        ((IMAGES, IS_SAME, []), "not a pair"),
        ({"a": 1}, "one dict"),
        ((b"bytes", b"bytes"), "not two lists"),
    ],
)
def test_a_pickle_of_something_else_is_refused_with_what_was_found(tmp_path, document, message):
    with pytest.raises(BenchmarkError, match=message):
        read(tmp_path, pickle.dumps(document))


def test_a_missing_file_and_one_beyond_the_limit_are_storage_errors(tmp_path):
    with pytest.raises(StorageError):
        read_benchmark(str(tmp_path), "absent")
    with pytest.raises(StorageError, match="larger than"):
        read(tmp_path, pickle.dumps((IMAGES, IS_SAME)), limit_bytes=10)
