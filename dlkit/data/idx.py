"""The IDX format, in which MNIST and its relatives are published.

A file is two zero bytes, a type code, the number of dimensions d, then d big-endian uint32 sizes, then the elements in
C order, big-endian. It may be packed with gzip. See http://yann.lecun.com/exdb/mnist.
"""

import gzip
import hashlib
import math
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# The type codes of the format, in its byte order.
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE = 1032  # deflate packs no more than this many bytes into one
_CHUNK = 1 << 20


class IdxError(ValueError):
    """A file that is not the IDX file it should be."""


class ChecksumError(ValueError):
    """Bytes that are not those that were asked for."""

    def __init__(self, what: str, expected: str, found: str) -> None:
        super().__init__(
            f"{what} is not the published file, or is damaged: expected SHA-256 {expected}, found {found}; "
            "delete it and fetch it anew"
        )
        self.expected, self.found = expected, found


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = 2**31, sha256: str | None = None) -> np.ndarray:
    """Read one IDX file, packed with gzip or not, into a read-only array in the machine's byte order.

    The size that the header claims is compared with `max_bytes` and with the size of the file before anything is
    allocated: a plain file must have exactly this size, and a packed one be large enough to unpack to it.

    Args:
        max_bytes: the most bytes that the unpacked file may have.
        sha256: what SHA-256 of the *unpacked* bytes must be, in hexadecimal (gzip may pack equal bytes differently).

    Raises:
        IdxError: not an IDX file, or longer or shorter than its header says, or damaged, or above `max_bytes`.
        ChecksumError: other bytes than `sha256` says; nothing was returned.
        OSError: the file cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(bytes([0, 0, 0x08, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6]))
    ...     file.flush()
    ...     read_idx(file.name)
    array([[1, 2, 3],
           [4, 5, 6]], dtype=uint8)
    """
    path = Path(path)
    if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would keep us waiting
        raise IdxError(f"{path} is not a regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) if packed else file as stream:
                return _parse(stream, path, size, packed, max_bytes, sha256)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise IdxError(f"{path} is a damaged gzip file: {error}") from error


def _parse(stream: Any, path: Path, size: int, packed: bool, max_bytes: int, sha256: str | None) -> np.ndarray:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not magic[3]:
        raise IdxError(
            f"{path} is not an IDX file: it begins with {magic!r}, not with 0, 0, a type and a dimension count"
        )
    dtype, ndim = np.dtype(TYPES[magic[2]]), magic[3]
    sizes = stream.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise IdxError(f"{path} ends inside its header of {ndim} dimensions")
    shape = struct.unpack(f">{ndim}I", sizes)
    count = math.prod(shape) * dtype.itemsize
    total = 4 + 4 * ndim + count
    claim = f"the header of {path} claims shape {shape}, {total} bytes"
    if total > max_bytes:
        raise IdxError(f"{claim}, above the limit of {max_bytes}; if this is right, raise max_bytes")
    if not packed and total != size:
        raise IdxError(f"{claim}, but the file has {size}: it is damaged or not whole")
    if packed and total > size * _DEFLATE:
        raise IdxError(f"{claim}, but {size} packed bytes cannot hold more than {size * _DEFLATE}")
    payload = bytearray()
    while len(payload) <= count and (chunk := stream.read(min(_CHUNK, count + 1 - len(payload)))):
        payload += chunk
    if len(payload) != count:
        fault = f"only {4 + 4 * ndim + len(payload)}" if len(payload) < count else "more"
        raise IdxError(f"{claim}, but the file holds {fault}: it is damaged or not whole")
    if sha256 is not None:
        digest = hashlib.sha256(magic + sizes)
        digest.update(payload)
        if digest.hexdigest() != sha256:
            raise ChecksumError(str(path), sha256, digest.hexdigest())
    array = np.frombuffer(payload, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    array.flags.writeable = False
    return array
