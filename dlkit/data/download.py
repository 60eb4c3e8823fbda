"""Fetch a published file once, check it, and keep it."""

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlkit.data.idx import ChecksumError

_CHUNK = 1 << 16
_TIMEOUT = 30.0  # seconds without any answer


class DownloadError(RuntimeError):
    """A file that no mirror gave as it should be."""


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/dlkit/<name>`, or `~/.cache/dlkit/<name>`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dlkit" / name


def fetch(urls: Sequence[str], path: Path, *, sha256: str, size: int, gzipped: bool = False) -> Path:
    """Write the file that one of `urls` gives to `path`, and return `path`.

    Mirrors are tried in turn. What is written is the unpacked file, once it has `size` bytes with this SHA-256: until
    then it is a temporary file beside `path`, which is removed on any error. Only https is spoken, redirects included.
    `DLKIT_OFFLINE=1` forbids downloading.

    Raises:
        DownloadError: what each mirror did wrong, with both digests where the bytes were others; or offline.
        OSError: the file cannot be written.
    """
    faults: list[str] = []
    if os.environ.get("DLKIT_OFFLINE", "0") not in ("", "0"):
        raise DownloadError(f"{path.name} is not downloaded, because DLKIT_OFFLINE is set")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for url in urls:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                digest, length = hashlib.sha256(), 0
                for chunk in _unpacked(_received(url, size), size, gzipped):
                    file.write(chunk)
                    digest.update(chunk)
                    length += len(chunk)
                if length != size:
                    raise DownloadError(f"expected {size} bytes, found {length}")
                if digest.hexdigest() != sha256:
                    raise ChecksumError("what it sent", sha256, digest.hexdigest())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            return path
        except (DownloadError, ChecksumError, zlib.error) as error:
            faults.append(f"  {url}: {error}")
        finally:
            Path(temporary).unlink(missing_ok=True)
    raise DownloadError(f"no mirror gave {path.name}:\n" + "\n".join(faults))


def _received(url: str, size: int) -> Iterator[bytes]:
    """The body, never more than the unpacked size and some room for the container of incompressible bytes."""
    import http.client

    limit = size + size // 1000 + 1024
    if not url.startswith("https://"):
        raise DownloadError("only https is allowed")
    try:
        with _open(url) as response:
            final = response.geturl()
            if not final.startswith("https://"):
                raise DownloadError(f"led to {final}: only https is allowed")
            header = response.headers.get("Content-Length")
            declared = int(header) if header and header.isdecimal() else None
            if declared is not None and declared > limit:
                raise DownloadError(f"announces {declared} bytes, more than the {limit} that the file can have")
            received = 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if received > (limit if declared is None else declared):
                    raise DownloadError(f"sent more than the {limit if declared is None else declared} bytes expected")
                yield chunk
            if declared is not None and received != declared:
                raise DownloadError(f"sent {received} bytes of the {declared} announced")
    except (OSError, http.client.HTTPException) as error:  # refused, timed out, certificate not trusted, cut off
        raise DownloadError(str(error) or type(error).__name__) from error


def _unpacked(chunks: Iterator[bytes], size: int, gzipped: bool) -> Iterator[bytes]:
    """The unpacked bytes, stopping as soon as there are more than `size`."""
    unpacker = zlib.decompressobj(wbits=31) if gzipped else None
    length = 0
    for chunk in chunks:
        piece = chunk if unpacker is None else unpacker.decompress(chunk, size + 1 - length)
        length += len(piece)
        if length > size:
            raise DownloadError(f"unpacks to more than the {size} bytes expected")
        yield piece
    if unpacker is not None and not unpacker.eof:
        raise DownloadError("the gzip stream is not whole")


def _open(url: str) -> Any:
    """Open a URL with an opener that knows no other scheme than https (and the proxy, if the environment names one)."""
    import urllib.error
    import urllib.request as request

    class HttpsRedirects(request.HTTPRedirectHandler):
        def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
            if not newurl.startswith("https://"):
                raise urllib.error.URLError(f"redirects to {newurl}: only https is allowed")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = request.OpenerDirector()
    for handler in (request.ProxyHandler, request.HTTPSHandler, request.HTTPErrorProcessor,
                    request.HTTPDefaultErrorHandler, HttpsRedirects):  # fmt: skip
        opener.add_handler(handler())
    return opener.open(request.Request(url, headers={"User-Agent": "dlkit"}), timeout=_TIMEOUT)
