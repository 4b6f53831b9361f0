"""The shards of a sharded state (FSDP2): a rank's own tensors, and where each lies in the whole."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.optim import Optimizer

_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.")
"""Parts of a parameter's name that say how the model is run, and not which parameter it is."""


def local_shards(state: Any) -> Any:
    """Return ``state`` with each DTensor replaced by this rank's shard, for ``Memory``: no copy is made.

    The shard is a view: what is loaded back is copied into it with ``restore_shards``.
    """
    match state:
        case DTensor():
            return state.to_local()
        case dict():
            return {key: local_shards(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(local_shards(value) for value in state)
        case _:
            return state


def restore_shards(state: Any, shards: Any) -> None:
    """Copy ``shards``, which ``local_shards`` of a state like ``state`` were, into its tensors.

    For ranks that shard as those that saved; another number of ranks loads from storage.
    """
    match state:
        case DTensor():
            state.to_local().detach().copy_(shards)
        case torch.Tensor():
            state.detach().copy_(shards)
        case dict():
            for key, value in state.items():
                restore_shards(value, shards[key])
        case list() | tuple():
            for value, shard in zip(state, shards, strict=True):
                restore_shards(value, shard)


def load_shards(model: nn.Module, optimizer: Optimizer, shards: Mapping[str, Any]) -> None:
    """Go back to ``shards``, which ``local_shards`` of the two state dicts were, on a rank that has the same part.

    The optimizer need not have made a step yet, as in a process that has just begun.
    """
    with torch.no_grad():
        restore_shards(model.state_dict(), shards["model"])
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    saved = shards["optimizer"]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    of = dict(zip(numbers, parameters, strict=True))
    moments = {
        number: {name: _sharded_like(value, of[number]) for name, value in entry.items()}
        for number, entry in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": moments})


class ShardTable:
    """Says of a rank's shards what they are called in the whole, and where in it they begin."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer
        self._names: list[str] = []
        self._places: dict[Any, tuple[list[int], list[int]]] = {}

    def meta(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return what goes with the shards of ``state``, the two state dicts, for ``ShardsReader``.

        ``names`` of the parameters, in the order of the optimizer's numbers; ``shards``: by their keys in
        ``torch.distributed.checkpoint``, the shape of the whole and the offset of the shard.
        """
        names = self._named()
        found = {
            f"model.{plain_name(name)}": self._place(value)
            for name, value in state["model"].items()
            if isinstance(value, DTensor)
        }
        for number, entry in state["optimizer"]["state"].items():
            for name, value in entry.items():
                if isinstance(value, DTensor):
                    found[f"optimizer.state.{names[number]}.{name}"] = self._place(value)
        return {"names": names, "shards": found}

    def _named(self) -> list[str]:
        parameters = [each for group in self._optimizer.param_groups for each in group["params"]]
        if len(self._names) != len(parameters):
            of = {each: plain_name(name) for name, each in self._model.named_parameters()}
            self._names = [of[each] for each in parameters]
        return self._names

    def _place(self, tensor: DTensor) -> tuple[list[int], list[int]]:
        key = (tensor.shape, tensor.device_mesh, tensor.placements)
        if key not in self._places:
            _, offset = compute_local_shape_and_global_offset(*key)
            self._places[key] = (list(tensor.shape), list(offset))
        return self._places[key]


def plain_name(name: str) -> str:
    """Return a parameter's name as ``torch.distributed.checkpoint`` has it."""
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _sharded_like(value: Any, parameter: torch.Tensor) -> Any:
    """Return a shard of an optimizer's state as a DTensor, where it is one of its parameter's shape."""
    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor):
        return value
    local = parameter.to_local()
    if value.dim() == 0 or value.shape != local.shape:
        return value
    return DTensor.from_local(
        value.to(local.device),
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
