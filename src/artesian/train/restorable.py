"""What a run restores: model, optimizer, scheduler, and this rank's random generators, as one state."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel


class Stateful(Protocol):
    """What has a state to save: a scheduler, a scaler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Scheduler(Stateful, Protocol):
    """A learning-rate scheduler: stepped once after every step of the optimizer."""

    def step(self) -> Any: ...


class Restorable:
    """The parts of a training loop that a checkpoint holds."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None,
        device: torch.device,
    ) -> None:
        # DDP prefixes every name with "module."; a checkpoint should fit with and without it.
        self._model: Stateful = model.module if isinstance(model, DistributedDataParallel) else model
        self.model, self.optimizer = model, optimizer
        self._scheduler = scheduler
        self._device = device

    @property
    def is_sharded(self) -> bool:
        """Whether each rank has a part of the parameters only, as under FSDP2."""
        return any(hasattr(parameter, "to_local") for parameter in self.model.parameters())

    def state(self) -> dict[str, Any]:
        """Return the state as of now; its tensors are the live ones, but for the generators' states."""
        return {
            "model": self._model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
        }

    def load(self, state: dict[str, Any], *, is_own: bool) -> None:
        """Go back to ``state``. ``is_own``: this rank saved it, so that its random generators go back, too."""
        self._model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.load_rest(state)
        if is_own:
            self.load_random(state)

    def load_rest(self, state: Mapping[str, Any]) -> None:
        """Go back to the part of ``state`` that is neither the model's nor the optimizer's, and no rank's own."""
        if self._scheduler is not None and state["scheduler"] is not None:
            self._scheduler.load_state_dict(state["scheduler"])

    def load_random(self, state: Mapping[str, Any]) -> None:
        """Have this rank's random generators go back."""
        torch.set_rng_state(state["rng"])
        device_rng = state.get("device_rng")  # older checkpoints have none
        if device_rng is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(device_rng, self._device)
