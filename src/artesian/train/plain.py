"""A state as plain data: a tree that JSON can hold, and beside it the tensors.

What a tensor or an array stood for is a number into the list of them; what JSON lacks (tuples, keys that
are no strings, bytes, dtypes) stands as an object with one key, its tag. Nothing is pickled: whatever the
bytes say, reading them back makes containers, numbers, strings and tensors, and runs no code. What cannot be said this way is refused
when it is saved, with its place in the state, and not when it is needed.
"""

import base64
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from artesian.train.errors import CheckpointError

_SEQUENCES: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset", torch.Size: "size"}
_MAPPINGS: dict[type, str] = {dict: "dict", OrderedDict: "ordered", Counter: "counter"}
_ATOMS = frozenset({type(None), bool, int, float, str})
_STR = frozenset({str})


def to_plain(state: Mapping[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """Return the tree of ``state``, and its tensors, detached, by their place; one that occurs twice is listed once.

    Raises CheckpointError, naming the place, for anything but tensors with dense storage, NumPy arrays,
    plain data and containers of them.
    """
    writer = _Writer()
    return writer.node(state, "state"), writer.tensors


def from_plain(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the state whose tree and tensors ``to_plain`` gave. Raises ValueError for any other tree."""
    try:
        return _read(tree, tensors)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the tree of the state is damaged: {error!r}") from error


class _Writer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._listed: dict[int, list[tuple[int, Tensor]]] = {}
        """The tensors by their address, with their numbers."""

    def node(self, value: Any, place: str) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._tensor(value, place)}
        if kind in _MAPPINGS:
            return {_MAPPINGS[kind]: self._items(value, place)}
        if kind is list:
            return self._list(value, place)
        if kind in _SEQUENCES:
            return {_SEQUENCES[kind]: self._list(value, place)}
        if isinstance(value, np.ndarray):
            return {"array": self._array(value, place)}
        if isinstance(value, np.generic):
            return self.node(value.item(), place)
        if kind is bytes:
            return {"bytes": base64.b64encode(value).decode()}
        if kind is complex:
            return {"complex": [value.real, value.imag]}
        if kind is torch.dtype:
            return {"dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"device": str(value)}
        raise CheckpointError(
            f"{place} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint does not hold",
            hint="save tensors, arrays, numbers, strings, and lists, tuples, sets and dicts of them",
        )

    # It runs at every step, so a place is put into words only for what is no plain number or string.

    def _list(self, value: Iterable[Any], place: str) -> list[Any]:
        return [
            item if type(item) in _ATOMS else self.node(item, f"{place}[{index}]")
            for index, item in enumerate(value)
        ]

    def _items(self, value: Mapping[Any, Any], place: str) -> list[Any] | dict[str, Any]:
        if _STR.issuperset(map(type, value)):
            return {
                key: item if type(item) in _ATOMS else self.node(item, f"{place}[{key!r}]")
                for key, item in value.items()
            }
        return [
            [self.node(key, f"a key of {place}"), self.node(item, f"{place}[{key!r}]")]
            for key, item in value.items()
        ]

    def _tensor(self, tensor: Tensor, place: str) -> int:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise CheckpointError(
                f"{place} is a {tensor.layout} tensor on {tensor.device}, which has no bytes to save"
            )
        if type(tensor) is not Tensor and type(tensor) is not torch.nn.Parameter:
            raise CheckpointError(
                f"{place} is a {type(tensor).__name__}, which is more than its bytes",
                hint="sharded state is saved by artesian.train.sharded, or as its `local_shards`",
            )
        plain = tensor.detach()
        if plain.is_conj() or plain.is_neg():
            plain = plain.resolve_conj().resolve_neg()
        listed = self._listed.setdefault(plain.data_ptr(), [])
        for index, other in listed:
            if _is_same(plain, other):
                return index
        index = len(self.tensors)
        listed.append((index, plain))
        self.tensors[place] = plain
        return index

    def _array(self, array: np.ndarray[Any, Any], place: str) -> int:
        try:
            self.tensors[place] = torch.from_numpy(array.copy())
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{place} is an array that torch cannot hold: {error}") from error
        return len(self.tensors) - 1


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors with the same address are one."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.device == other.device
        and one.numel() > 0
    )


def _read(tree: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(tree, list):
        return [_read(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((tag, value),) = tree.items()
    match tag:
        case "dict" | "ordered" | "counter":
            items = (
                value.items()
                if isinstance(value, dict)
                else ((_read(key, tensors), item) for key, item in value)
            )
            pairs = {key: _read(item, tensors) for key, item in items}
            return pairs if tag == "dict" else OrderedDict(pairs) if tag == "ordered" else Counter(pairs)
        case "tuple":
            return tuple(_read(item, tensors) for item in value)
        case "set":
            return {_read(item, tensors) for item in value}
        case "frozenset":
            return frozenset(_read(item, tensors) for item in value)
        case "size":
            return torch.Size(value)
        case "tensor":
            return tensors[value]
        case "array":
            return tensors[value].numpy()
        case "bytes":
            return base64.b64decode(value)
        case "complex":
            return complex(*value)
        case "dtype":
            return dtype_named(value)
        case "device":
            return torch.device(value)
        case _:
            raise ValueError(f"the tree of the state holds {tag!r}, which this version does not know")


def dtype_named(name: str) -> torch.dtype:
    """Return the dtype that is called ``torch.<name>``. Raises ValueError where there is none."""
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name!r} is no dtype of this torch")  # noqa: TRY004 - the bytes are wrong, not a type
    return found
