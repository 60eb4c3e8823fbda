import gzip
import hashlib
import importlib
import io
import os
import struct
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from dlkit.data import ChecksumError, DownloadError, IdxError, digits, mnist

module = importlib.import_module("dlkit.data.mnist")  # `dlkit.data.mnist` itself is the function
download = importlib.import_module("dlkit.data.download")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


X = np.random.default_rng(0).integers(0, 256, (6, 28, 28)).astype(np.uint8)
Y = np.array([3, 1, 4, 1, 5, 9], np.uint8)
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
SMALL = {IMAGES: idx(X), LABELS: idx(Y)}


class Response(io.BytesIO):
    def __init__(self, body: bytes, url: str, declared: int | None) -> None:
        super().__init__(body)
        self.url, self.headers = url, {} if declared is None else {"Content-Length": str(declared)}

    def geturl(self) -> str:
        return self.url


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A small MNIST, an empty machine, and the web: a dict from URL to body, exception or response."""
    files = {name: (hashlib.sha256(body).hexdigest(), len(body)) for name, body in SMALL.items()}
    monkeypatch.setattr(module, "FILES", files)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DLKIT_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DLKIT_OFFLINE", raising=False)
    pages, asked = {}, []

    def open_url(url):
        asked.append(url)
        page = pages.get(url, urllib.error.URLError("no network"))
        if isinstance(page, Exception):
            raise page
        return page if isinstance(page, Response) else Response(page, url, len(page))

    monkeypatch.setattr(download, "_open", open_url)
    pages["asked"] = asked
    return pages


def serve(web: dict, mirror: str, bodies: dict[str, bytes]) -> None:
    web.update({f"{mirror}{name}.gz": gzip.compress(body) for name, body in bodies.items()})


def check_small(ds) -> None:
    assert repr(ds) == "Arrays('mnist/test', 6 examples: x uint8[28, 28, 1], y int32[])"
    np.testing.assert_array_equal(ds.x[..., 0], X)
    np.testing.assert_array_equal(ds.y, Y)
    assert ds.classes == tuple("0123456789")


@pytest.mark.parametrize("place", ["root", "data/mnist", "data", "cache/dlkit/mnist"])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dotted", [False, True])
def test_files_are_found(web, tmp_path, place, ending, dotted):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    for name, body in SMALL.items():
        file = (name.replace("-idx", ".idx") if dotted else name) + ending
        (folder / file).write_bytes(gzip.compress(body) if ending else body)
    check_small(mnist("test", root=tmp_path / "root"))
    assert web["asked"] == []


def test_root_comes_first_then_the_environment_then_the_cache(web, tmp_path, monkeypatch):
    expected = [tmp_path / "a", tmp_path / "data/mnist", tmp_path / "data", tmp_path / "cache/dlkit/mnist"]
    assert module.folders(tmp_path / "a") == expected
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("DLKIT_DATA")
    assert module.folders() == [Path.home() / ".cache/dlkit/mnist"]


def test_a_changed_file_is_refused_and_left_alone(web, tmp_path):
    body = bytearray(SMALL[IMAGES])
    body[-1] ^= 1
    (tmp_path / IMAGES).write_bytes(body)
    with pytest.raises(ChecksumError, match="damaged") as caught:
        mnist("test", root=tmp_path)
    for content in (body, SMALL[IMAGES]):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    (tmp_path / IMAGES).write_bytes(SMALL[IMAGES][:-1])
    with pytest.raises(IdxError, match="not whole"):
        mnist("test", root=tmp_path)
    assert web["asked"] == []  # never replaced behind the user's back


def test_download_into_the_cache_once(web, tmp_path):
    serve(web, MIRROR_0, SMALL)
    check_small(mnist("test"))
    folder = tmp_path / "cache/dlkit/mnist"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == SMALL
    assert folder.stat().st_mode & 0o777 == 0o700
    check_small(mnist("test"))
    assert len(web["asked"]) == 2


def test_download_into_root(web, tmp_path):
    serve(web, MIRROR_0, SMALL)
    check_small(mnist("test", root=tmp_path / "mine"))
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == sorted(SMALL)


MIRROR_0, MIRROR_1 = module.MIRRORS
GZ = gzip.compress(SMALL[IMAGES])
URL = f"{MIRROR_0}{IMAGES}.gz"
CHANGED = SMALL[IMAGES][:-1] + bytes([SMALL[IMAGES][-1] ^ 1])
FAULTS = {
    "other content": (gzip.compress(CHANGED), "expected SHA-256 .* found"),
    "shorter file": (gzip.compress(SMALL[IMAGES][:-1]), "expected 4720 bytes, found 4719"),
    "bomb": (gzip.compress(bytes(4_000_000)), "unpacks to more than the 4720"),
    "error page": (b"<html>not found</html>", "header"),
    "cut off": (Response(GZ[:1000], URL, len(GZ)), f"sent 1000 bytes of the {len(GZ)} announced"),
    "cut off, nothing announced": (Response(GZ[:1000], URL, None), "not whole"),
    "longer than announced": (Response(GZ + bytes(99), URL, len(GZ)), f"more than the {len(GZ)} bytes expected"),
    "endless": (Response(bytes(10_000_000), URL, None), "more than the|header"),
    "announces too much": (Response(b"", URL, 10**12), "announces 1000000000000 bytes"),
    "led to file": (Response(GZ, "file:///etc/passwd", None), "led to file:///etc/passwd: only https"),
    "led to http": (Response(GZ, "http://example.org/x", None), "led to http://example.org/x: only https"),
    "timeout": (TimeoutError("timed out"), "timed out"),
    "gone": (urllib.error.HTTPError(URL, 404, "Not Found", None, None), "404"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", FAULTS)
def test_faulty_mirrors_leave_nothing_behind(web, tmp_path, name):
    fault, words = FAULTS[name]
    if isinstance(fault, Response):
        fault.seek(0)
    web[URL] = fault
    with pytest.raises(DownloadError, match=words):
        mnist("test")
    assert web["asked"] == [URL, f"{MIRROR_1}{IMAGES}.gz"]
    assert list((tmp_path / "cache/dlkit/mnist").iterdir()) == []


def test_the_next_mirror_is_tried(web):
    serve(web, MIRROR_0, {IMAGES: CHANGED, LABELS: b""})
    serve(web, MIRROR_1, SMALL)
    check_small(mnist("test"))


def test_a_failure_while_writing_leaves_nothing_behind(web, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    serve(web, MIRROR_0, SMALL)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        mnist("test")
    assert list((tmp_path / "cache/dlkit/mnist").iterdir()) == []


def test_offline_says_where_it_looked_and_what_to_do(web, tmp_path, monkeypatch):
    with pytest.raises(DownloadError) as caught:
        mnist("test", root=tmp_path / "mine")
    message = str(caught.value)
    for place in ("mine", "data/mnist", "data", "cache/dlkit/mnist"):
        assert f"{tmp_path / place}\n" in message
    for words in (IMAGES, MIRROR_0, MIRROR_1, "no network", "set DLKIT_DATA"):
        assert words in message
    monkeypatch.setenv("DLKIT_OFFLINE", "1")
    before = len(web["asked"])
    with pytest.raises(DownloadError, match="DLKIT_OFFLINE is set"):
        mnist("test")
    assert len(web["asked"]) == before


def test_only_https_is_opened(web, tmp_path):
    for url in ("http://example.org/x", "file:///etc/passwd", "ftp://example.org/x"):
        with pytest.raises(DownloadError, match="only https is allowed"):
            download.fetch([url], tmp_path / "x", sha256="", size=10)
    assert web["asked"] == []


def test_redirects_stay_on_https(monkeypatch):
    """The real opener, with the connection replaced: what it does with a redirect, and with other schemes."""
    import email.message

    class Reply(io.BytesIO):
        code = status = 302
        msg = reason = "Found"

        def info(self):
            return self.headers

    target = {"url": ""}

    def connect(_, request):
        reply = Reply(b"")
        reply.headers = email.message.Message()  # type: ignore[attr-defined]
        if request.full_url == "https://here.example/x":
            reply.headers["Location"] = target["url"]
        else:
            reply.code = reply.status = 200
        return reply

    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", connect)
    for url in ("file:///etc/passwd", "http://there.example/x", "ftp://there.example/x"):
        target["url"] = url
        with pytest.raises(urllib.error.URLError, match=r"only https|not allowed"):
            download._open("https://here.example/x")
    target["url"] = "https://there.example/x"
    assert download._open("https://here.example/x").code == 200
    assert download._open("file:///etc/passwd") is None  # nothing there knows the scheme


def test_split_is_train_or_test():
    with pytest.raises((ValueError, TypeError), match="split"):
        mnist("valid")  # type: ignore[arg-type]


def test_images_without_their_labels(web, tmp_path, monkeypatch):
    body = idx(Y[:5])
    files = {**module.FILES, LABELS: (hashlib.sha256(body).hexdigest(), len(body))}
    monkeypatch.setattr(module, "FILES", files)
    (tmp_path / IMAGES).write_bytes(SMALL[IMAGES])
    (tmp_path / LABELS).write_bytes(body)
    with pytest.raises(IdxError, match="do not belong together"):
        mnist("test", root=tmp_path)


REAL = [p for p in (Path(os.environ.get("DLKIT_DATA", "")) / "mnist", Path(os.environ.get("DLKIT_DATA", ""))) if p]
HERE = "DLKIT_DATA" in os.environ and any((p / f"{IMAGES}{e}").exists() for p in REAL for e in ("", ".gz"))


@pytest.mark.skipif(not HERE, reason="DLKIT_DATA does not point at MNIST")
@pytest.mark.parametrize(
    ("split", "n", "counts"),
    [  # class counts as published with torchvision's and Keras's copies
        ("train", 60_000, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
        ("test", 10_000, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ],
)
def test_the_real_mnist(split, n, counts):
    ds = mnist(split)
    assert (ds.x.shape, ds.x.dtype, ds.y.dtype) == ((n, 28, 28, 1), np.uint8, np.int32)
    assert np.bincount(ds.y).tolist() == counts
    if split == "train":  # the mean and standard deviation that everyone normalizes with
        assert abs(ds.x.mean() / 255 - 0.1307) < 5e-5
        assert abs(ds.x.std() / 255 - 0.3081) < 5e-5
        assert ds.y[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]


def test_digits_are_scikit_learn_s():
    from sklearn.datasets import load_digits

    ds, theirs = digits(), load_digits()
    assert (len(ds), ds.x.shape, ds.x.dtype, ds.y.dtype) == (1797, (1797, 8, 8, 1), np.float32, np.int32)
    np.testing.assert_array_equal(ds.x[..., 0] * 16, theirs.images)
    np.testing.assert_array_equal(ds.y, theirs.target)
    assert np.bincount(ds.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (ds.x.min(), ds.x.max()) == (0, 1)
    assert ds.classes == tuple("0123456789")


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[train\]"'):
        digits()
