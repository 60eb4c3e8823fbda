"""Safetensors files against the `safetensors` package, bit for bit, and files that are damaged."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from dlkit import io

ARRAYS = {
    "z": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bf": (np.arange(5) / 3).astype(jnp.bfloat16),
    "empty": np.zeros((0, 4), np.float16),
    "scalar": np.array(7, np.int64),
    "flags": np.array([True, False, True]),
}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_files_of_the_package_come_back_byte_for_byte(tmp_path):
    """Read, write: the same bytes, with names in the order of the file."""
    theirs = {name: value for name, value in ARRAYS.items() if name != "bf"}
    safetensors.numpy.save_file(theirs, tmp_path / "a.safetensors", {"format": "pt", "note": "ü"})
    read = io.open_tensors(tmp_path / "a.safetensors")
    assert all(same(read[name], value) for name, value in theirs.items())
    io.write_tensors(tmp_path / "b.safetensors", read, read.metadata)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_order_and_bfloat16_are_kept_and_the_package_reads_it(tmp_path):
    io.write_tensors(tmp_path / "a.safetensors", ARRAYS, {"k": "v"})
    read = io.open_tensors(tmp_path / "a.safetensors")
    assert list(read) == list(ARRAYS)
    assert read.dtypes["bf"] == "bfloat16"
    assert all(same(read[name], value) for name, value in ARRAYS.items())
    with safetensors.safe_open(tmp_path / "a.safetensors", "numpy") as theirs:
        assert theirs.metadata() == {"k": "v"}
        assert same(theirs.get_tensor("z"), ARRAYS["z"])
    assert not read["z"].flags.writeable  # a view of the file


def test_shards(tmp_path):
    io.write_tensors(tmp_path / "m", ARRAYS, {"k": "v"}, shard_bytes=16)
    assert len(list((tmp_path / "m").glob("*.safetensors"))) == 3
    for place in (tmp_path / "m", tmp_path / "m" / "model.safetensors.index.json"):
        read = io.open_tensors(place)
        assert all(same(read[name], value) for name, value in ARRAYS.items())
        assert read.metadata == {"k": "v"}
    (tmp_path / "m" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00003.*, which is not there"):
        io.open_tensors(tmp_path / "m")


def test_a_shard_outside_of_the_directory_is_refused(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(io.TensorFileError, match="want a plain name"):
        io.open_tensors(tmp_path)


def test_damage_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    io.write_tensors(path, ARRAYS)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    overlap = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}).encode()
    cases = {
        "truncated: its header": whole[:-1],
        "damaged: 3 bytes follow": whole + b"abc",
        "truncated or no safetensors": whole[: length // 2],
        "truncated or no": b"\xff" * 40,
        "header cannot be read": (4).to_bytes(8, "little") + b"nope",
        "takes 8 bytes from 0 on": len(overlap).to_bytes(8, "little") + overlap + bytes(12),
        "is of dtype Q9": (s := whole.replace(b'"F16"', b'"Q9" ')),
    }
    assert len(s) == len(whole)
    for message, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(io.TensorFileError, match=message):
            io.open_tensors(path)


def test_pickles_are_not_read_and_conversion_is_told(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    for place in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(io.TensorFileError, match="Convert it where you trust it"):
            io.open_tensors(place)


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from dlkit import io
print(len(io.open_tensors(sys.argv[1])), len(io.open_tensors(sys.argv[2])), "torch" in sys.modules)
"""


def test_single_and_sharded_files_are_read_without_torch(tmp_path):
    io.write_tensors(tmp_path / "a.safetensors", ARRAYS)
    io.write_tensors(tmp_path / "m", ARRAYS, shard_bytes=16)
    argv = [sys.executable, "-c", WITHOUT, str(tmp_path / "a.safetensors"), str(tmp_path / "m")]
    run = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["5", "5", "False"]
