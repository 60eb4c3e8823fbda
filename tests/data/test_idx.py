import gzip
import hashlib
import os
import struct

import numpy as np
import pytest

from dlkit.data import ChecksumError, IdxError, read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(4, 3, 2))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("code", CODES)
def test_round_trip(tmp_path, code, packed):
    array = np.random.default_rng(0).integers(0, 100, (5, 3, 2)).astype(code)
    path = tmp_path / "file"  # told by its content, not by its name
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    got = read_idx(path)
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype
    assert got.dtype.isnative
    assert not got.flags.writeable


def header(*sizes: int, code: int = 0x08, zeros: bytes = b"\0\0") -> bytes:
    return zeros + bytes([code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


HOSTILE = {
    "empty": (b"", "not an IDX file"),
    "text": (b"not an idx file at all", "not an IDX file"),
    "pickle": (b"\x80\x04\x95\x00\x00\x00\x00", "not an IDX file"),
    "type code": (header(1, code=0x0A) + b"1", "not an IDX file"),
    "wrong magic": (header(1, zeros=b"\1\0") + b"1", "not an IDX file"),
    "no dimension": (b"\0\0\x08\0" + b"1", "not an IDX file"),
    "cut magic": (b"\0\0\x08", "not an IDX file"),
    "cut header": (b"\0\0\x08\xff\0\0", "ends inside its header of 255 dimensions"),
    "too short": (GOOD[:-1], "40 bytes, but the file has 39|only 39"),
    "too long": (GOOD + b"x", "40 bytes, but the file has 41|holds more"),
    "lies by 4 GiB": (header(2**32 - 1) + b"1", "above the limit of 2147483648"),
    "overflows 64 bits": (header(*[2**32 - 1] * 3, code=0x0E) + b"1", "above the limit"),
    "lies by 1 GiB": (header(2**30) + b"1", "but the file has 9|cannot hold more than"),
    "255 dimensions of 1": (header(*[1] * 255, code=0x0E) + b"1", "but the file has|only"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_without_allocating(tmp_path, name, packed):
    import tracemalloc

    content, words = HOSTILE[name]
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(content) if packed else content)
    tracemalloc.start()
    try:
        with pytest.raises(IdxError, match=words) as caught:
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert peak < 4 << 20


def test_bomb_over_the_cap(tmp_path):
    path = tmp_path / "bomb.gz"
    size = 50_000_000
    path.write_bytes(gzip.compress(header(size) + bytes(size)))
    assert path.stat().st_size < size / 900
    with pytest.raises(IdxError, match="above the limit of 1000000; if this is right, raise max_bytes"):
        read_idx(path, max_bytes=1_000_000)
    # A header that claims little before much: reading stops at once.
    path.write_bytes(gzip.compress(header(10) + bytes(size)))
    with pytest.raises(IdxError, match="holds more"):
        read_idx(path, max_bytes=1_000_000)


def test_damaged_gzip_in_every_byte(tmp_path):
    """A flip of any byte either leaves the unpacked bytes as they were, or is refused."""
    path = tmp_path / "file"
    packed = gzip.compress(GOOD, mtime=0)
    digest = hashlib.sha256(GOOD).hexdigest()
    refused = 0
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_idx(path, sha256=digest), read_good())
        except (IdxError, ChecksumError):
            refused += 1
    assert refused >= len(packed) - 10  # the time, the flags and the system in gzip's header mean nothing
    for cut in range(len(packed)):
        path.write_bytes(packed[:cut])
        with pytest.raises(IdxError):
            read_idx(path)


def read_good() -> np.ndarray:
    return np.arange(24, dtype=np.uint8).reshape(4, 3, 2)


def test_checksum_names_both_digests(tmp_path):
    good = hashlib.sha256(GOOD).hexdigest()
    changed = bytearray(GOOD)
    changed[-1] ^= 1
    path = tmp_path / "file"
    path.write_bytes(GOOD)
    np.testing.assert_array_equal(read_idx(path, sha256=good), read_good())
    path.write_bytes(changed)
    with pytest.raises(ChecksumError) as caught:
        read_idx(path, sha256=good)
    found = hashlib.sha256(changed).hexdigest()
    assert (caught.value.expected, caught.value.found) == (good, found)
    assert good in str(caught.value)
    assert found in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_only_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(IdxError, match="not a regular file"):
            read_idx(path)
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
