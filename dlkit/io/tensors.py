"""Safetensors files: named arrays, read where they lie on the disk and written back bit for bit.

A file is eight bytes (the length n of what follows, little-endian), n bytes of JSON (for each name its dtype, shape and
place; `__metadata__`, strings), and the numbers. https://github.com/huggingface/safetensors#format. Reading it runs no
code. It is parsed here because the order of the names, which the `safetensors` package does not keep, is a part of the
file, and because that package gives numpy no bfloat16.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["TensorFileError", "Tensors", "open_tensors", "write_tensors"]

INDEX = "model.safetensors.index.json"
SINGLE = ("model.safetensors", "state.safetensors")
_LONGEST = 100_000_000  # bytes of a header, the format's own limit
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "C64": "complex64",
}  # fmt: skip
_CODES = {name: code for code, name in _DTYPES.items()}
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


class TensorFileError(ValueError):
    """A file of tensors cannot be read or written. The message names the file and what is wrong with it."""


@dataclass(frozen=True)
class _Entry:
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # of its bytes in the file


@dataclass(frozen=True, eq=False)
class Tensors(Mapping[str, np.ndarray]):
    """The arrays of one file or of several shards, by name, in the order of the file: made by `open_tensors`.

    An array is read when it is asked for, as a read-only view of the mapped file. `shapes` and `dtypes` cost nothing;
    `metadata` are the strings that were stored beside them.
    """

    entries: Mapping[str, _Entry]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.entries[name]
        dtype = jnp.dtype(entry.dtype)
        if math.prod(entry.shape) == 0:
            return np.zeros(entry.shape, dtype)
        size = math.prod(entry.shape) * dtype.itemsize
        raw = np.memmap(entry.file, np.uint8, "r", offset=entry.start, shape=(size,))
        return np.asarray(raw).view(dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def dtypes(self) -> dict[str, str]:
        return {name: entry.dtype for name, entry in self.entries.items()}

    def __repr__(self) -> str:
        files = {entry.file.name for entry in self.entries.values()}
        return f"Tensors({len(self)} arrays in {', '.join(sorted(files)) or 'no file'})"


def open_tensors(path: str | Path) -> Tensors:
    """The tensors at `path`: a `.safetensors` file, a `.safetensors.index.json` with its shards, or a directory.

    In a directory, `model.safetensors.index.json` is looked for first, then `model.safetensors`, then the
    `state.safetensors` of a checkpoint. Only headers are read; every offset in them is checked against the file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_tensors(path, {"w": np.ones((2, 3), jnp.bfloat16)}, {"format": "np"})
    >>> open_tensors(path), open_tensors(path)["w"].dtype.name, open_tensors(path).metadata
    (Tensors(1 arrays in a.safetensors), 'bfloat16', {'format': 'np'})

    Raises:
      FileNotFoundError: there is no such file, or a shard is missing.
      TensorFileError: a file is truncated, damaged, of an unknown dtype, or a pickle, which could run code.
    """
    path = Path(path)
    if path.is_dir():
        found = next((path / name for name in (INDEX, *SINGLE) if (path / name).is_file()), None)
        if found is None:
            pickled = sorted(p for p in path.iterdir() if p.suffix in _PICKLED)
            if pickled:
                raise _pickle(pickled[0])
            raise FileNotFoundError(f"{path} holds no {INDEX} and no {' or '.join(SINGLE)}")
        path = found
    if path.suffix in _PICKLED:
        raise _pickle(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.name.endswith(".index.json"):
        return _shards(path)
    metadata, entries = _header(path)
    return Tensors(entries, metadata)


def write_tensors(
    path: str | Path,
    arrays: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    shard_bytes: int | None = None,
) -> None:
    """Write arrays (numpy's or JAX's) in the order given, so that what `open_tensors` read becomes the same bytes.

    Args:
      path: of the file. With `shard_bytes`, a directory: shards and `model.safetensors.index.json`, Hugging Face's way.
      metadata: strings.
      shard_bytes: the size beyond which a new shard begins; an array is never cut.

    Raises:
      TensorFileError: a dtype that the format does not have, or metadata that are not strings.
    """
    path = Path(path)
    held = dict(metadata or {})
    if not all(isinstance(text, str) for pair in held.items() for text in pair):
        raise TensorFileError(f"{path}: metadata of safetensors are strings, got {held}")
    if shard_bytes is None:
        return _write(path, arrays, held)
    groups: list[dict[str, Any]] = [{}]
    full = total = 0
    for name, value in arrays.items():
        size = math.prod(value.shape) * jnp.dtype(value.dtype).itemsize
        if groups[-1] and full + size > shard_bytes:
            groups.append({})
            full = 0
        groups[-1][name] = value
        full, total = full + size, total + size
    path.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for i, group in enumerate(groups, 1):
        file = f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        _write(path / file, group, held)
        weight_map |= dict.fromkeys(group, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (path / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return None


def _write(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, value in arrays.items():
        dtype = jnp.dtype(value.dtype).name
        if dtype not in _CODES or name == "__metadata__":
            raise TensorFileError(f"{path}: {name!r} of dtype {dtype} cannot be stored; want {', '.join(_CODES)}")
        start, end = end, end + math.prod(value.shape) * jnp.dtype(dtype).itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # what is being read may be what is replaced
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for value in arrays.values():
                one = np.asarray(value)
                file.write(np.ascontiguousarray(one).astype(one.dtype.newbyteorder("<"), copy=False).tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _header(path: Path) -> tuple[dict[str, str], dict[str, _Entry]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > min(size - 8, _LONGEST):
            raise TensorFileError(
                f"{path} is truncated or no safetensors file: it has {size:,} bytes and says that its header has "
                f"{length:,}; fetch it again"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        metadata = dict(header.pop("__metadata__", None) or {})
        places = {
            name: (_DTYPES.get(e["dtype"], e["dtype"]), tuple(e["shape"]), *e["data_offsets"])
            for name, e in header.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TensorFileError(f"{path} is no safetensors file: its header cannot be read: {error}") from None
    entries, end = {}, 0
    for name, (dtype, shape, start, stop) in sorted(places.items(), key=lambda item: item[1][2:]):
        if dtype not in _CODES:
            raise TensorFileError(f"{path}: {name!r} is of dtype {dtype}; known are {', '.join(_DTYPES)}")
        if not all(isinstance(n, int) and n >= 0 for n in (*shape, start, stop)):
            raise TensorFileError(f"{path}: {name!r} has shape {shape} and place {start}:{stop}")
        want = math.prod(shape) * jnp.dtype(dtype).itemsize
        if start != end or stop - start != want:
            raise TensorFileError(
                f"{path} is damaged: {name!r}, {dtype}{list(shape)}, takes {want:,} bytes from {end:,} on, and the "
                f"header says {start:,} to {stop:,}"
            )
        entries[name], end = _Entry(path, dtype, shape, 8 + length + start), stop
    if 8 + length + end != size:
        raise TensorFileError(
            f"{path} is truncated: its header wants {8 + length + end:,} bytes, it has {size:,}; fetch it again"
            if 8 + length + end > size
            else f"{path} is damaged: {size - 8 - length - end:,} bytes follow the last array"
        )
    return metadata, entries


def _shards(index: Path) -> Tensors:
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        where = {str(name): str(file) for name, file in told["weight_map"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TensorFileError(f"{index} is no index of shards: {error!r}") from None
    metadata: dict[str, str] = {}
    found: dict[str, _Entry] = {}
    for file in dict.fromkeys(where.values()):
        if Path(file).name != file or "\\" in file or file in ("", ".", ".."):
            raise TensorFileError(f"{index} names the file {file!r}: want a plain name beside it")
        if not (index.parent / file).is_file():
            raise FileNotFoundError(f"{index} names the shard {file}, which is not there: fetch it")
        more, entries = _header(index.parent / file)
        metadata |= more
        mine = {name for name, place in where.items() if place == file}
        if mine != entries.keys():
            odd = sorted(mine ^ entries.keys())
            raise TensorFileError(f"{index} and {file} do not belong together: {', '.join(odd[:5])} is in one only")
        found |= entries
    return Tensors(found, metadata)


def _pickle(path: Path) -> TensorFileError:
    return TensorFileError(
        f"{path} is a pickle, which can run any code when it is read, so it is not. Convert it where you trust it and "
        f"torch is installed: safetensors.torch.save_file(torch.load({path.name!r}, weights_only=True), "
        f"'model.safetensors'), or model.save_pretrained(directory) in transformers"
    )
