"""A dataset in memory: numpy arrays of equal length, by name."""

import hashlib
from collections.abc import ItemsView, Iterator, KeysView, Sequence
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np

_CHUNK = 1 << 24  # bytes hashed at a time, so that arrays that are not contiguous are never copied whole


class Arrays:
    """Arrays of equal length by name: row i of every field belongs to example i.

    `ds.x` and `ds["x"]` are the field `x` (`[n, ...]`, read-only); `len(ds)` is n; `ds[3]` is example 3 as a dict;
    `ds[2:8]`, `ds[indices]` and `ds.take(indices)` are new `Arrays`, gathered by one indexing operation for each field.
    Fields keep their dtype. Unlike torch's `TensorDataset`, fields have names, and a batch is a gather, not a loop over
    examples.

    Args:
        name: what the dataset is called in reports.
        classes: the names of the classes; class k is `classes[k]`.
        **fields: the arrays `[n, ...]`, n at least 1, of numbers or booleans. Anything `np.asarray` takes is accepted;
            numpy arrays, memory-mapped ones too, are not copied, and must not be changed afterwards.

    Raises:
        ValueError: no field, a field without examples or of another length, or a name that cannot be an attribute.
        TypeError: a field that does not hold numbers.

    >>> ds = Arrays(x=np.zeros((10, 8, 8, 1), np.float32), y=np.arange(10))
    >>> ds
    Arrays(10 examples: x float32[8, 8, 1], y int64[])
    >>> len(ds.take([3, 5])), ds[-1]["y"].item()
    (2, 9)
    """

    name: str | None
    classes: tuple[str, ...] | None
    _fields: dict[str, np.ndarray]

    def __init__(self, *, name: str | None = None, classes: Sequence[str] | None = None, **fields: Any) -> None:
        if not fields:
            raise ValueError("Arrays has no field: give at least one, as in Arrays(x=images, y=labels)")
        arrays = {key: _checked(key, value) for key, value in fields.items()}
        (first, head), *rest = arrays.items()
        for key, array in rest:
            if len(array) != len(head):
                raise ValueError(
                    f"field {key!r} has {len(array)} examples, but field {first!r} has {len(head)}: "
                    "every field must have one row for each example"
                )
        if not len(head):
            raise ValueError(f"field {first!r} is empty, shape {head.shape}: a dataset has at least one example")
        self._set(name, None if classes is None else tuple(classes), arrays)

    def _set(self, name: str | None, classes: tuple[str, ...] | None, fields: dict[str, np.ndarray]) -> None:
        for array in fields.values():
            array.flags.writeable = False
        self.__dict__.update(name=name, classes=classes, _fields=fields, _digest=None)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "classes": self.classes, "fields": self._fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays that were pickled or copied are writeable again, so a digest taken before would not have to be theirs.
        self._set(state["name"], state["classes"], state["fields"])

    def take(self, indices: Any) -> "Arrays":
        """The examples at `indices` (integers, negative ones count from the end), gathered into new arrays.

        No index at all gives a dataset of length 0.

        Raises:
            TypeError: the indices are not integers. ValueError: they are not one-dimensional.
            IndexError: one of them is out of range.
        """
        rows = np.asarray(indices)
        if rows.ndim != 1:
            raise ValueError(f"take wants a one-dimensional array of indices, got shape {rows.shape}")
        if rows.size and rows.dtype.kind not in "iu":
            raise TypeError(f"take wants integer indices, got {rows.dtype}; for a mask give np.flatnonzero(mask)")
        return self._with({key: array.take(rows.astype(np.intp), axis=0) for key, array in self._fields.items()})

    def _with(self, fields: dict[str, np.ndarray]) -> "Arrays":
        result = object.__new__(Arrays)
        result._set(self.name, self.classes, fields)
        return result

    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the fields' names, dtypes, shapes and bytes; computed once.

        The order of the fields, the memory layout and the byte order do not matter, nor do `name` and `classes`.
        """
        if self.__dict__["_digest"] is None:
            digest = hashlib.sha256()
            for key in sorted(self._fields):
                array = self._fields[key]
                digest.update(f"{key}:{array.dtype.name}:{array.shape};".encode())
                step = max(1, _CHUNK // max(1, array.nbytes // max(1, len(array))))
                for start in range(0, len(array), step):
                    rows = array[start : start + step]
                    little = rows.dtype.newbyteorder("<") if rows.dtype.kind in "iufc" else rows.dtype
                    digest.update(np.ascontiguousarray(rows, little).tobytes())
            self.__dict__["_digest"] = digest.hexdigest()
        return self.__dict__["_digest"]

    def keys(self) -> KeysView[str]:
        """The names of the fields; with it `dict(ds)` and `f(**ds)` work."""
        return self._fields.keys()

    def items(self) -> ItemsView[str, np.ndarray]:
        """The pairs (name, field)."""
        return self._fields.items()

    def __len__(self) -> int:
        return len(next(iter(self._fields.values())))

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            if item not in self._fields:
                raise KeyError(f"no field {item!r}: there are {', '.join(self._fields)}")
            return self._fields[item]
        if isinstance(item, int | np.integer):
            return {key: array[item] for key, array in self._fields.items()}
        if isinstance(item, slice):
            return self._with({key: array[item] for key, array in self._fields.items()})
        return self.take(item)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __getattr__(self, name: str) -> np.ndarray:
        fields = self.__dict__.get("_fields", {})
        if name not in fields:
            raise AttributeError(f"Arrays has no field or attribute {name!r}: its fields are {', '.join(fields)}")
        return fields[name]

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(
            f"cannot set {name!r}: Arrays is frozen; make a new one, Arrays(**{{**ds, {name!r}: ...}})"
        )

    def __repr__(self) -> str:
        fields = ", ".join(f"{k} {a.dtype}[{', '.join(map(str, a.shape[1:]))}]" for k, a in self._fields.items())
        label = "" if self.name is None else f"{self.name!r}, "
        return f"Arrays({label}{len(self)} examples: {fields})"


def _checked(key: str, value: Any) -> np.ndarray:
    if key.startswith("_") or key in dir(Arrays) or not key.isidentifier():
        raise ValueError(
            f"a field cannot be called {key!r}: take an identifier that is no attribute of Arrays, as in x="
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"field {key!r} is no array: {error}") from error
    if array.dtype != np.bool_ and not jnp.issubdtype(array.dtype, np.number):
        raise TypeError(
            f"field {key!r} has dtype {array.dtype}: it must hold numbers or booleans; "
            "encode text and categories as integers, and give rows one common shape"
        )
    if array.ndim == 0:
        raise ValueError(f"field {key!r} is one number: it must have shape [n, ...], a row for each example")
    return array.view()  # a view of its own, so that making it read-only leaves the caller's array as it was
