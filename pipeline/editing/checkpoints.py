"""Interrupted training, taken up again to the same bits: one file, whole or absent, no pickle."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.storage import write_aside

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Store:
    """The checkpoint of one run. With `folder` None nothing is kept."""

    folder: Path | None
    learner: nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def _path(self) -> Path | None:
        return self.folder / "checkpoint.safetensors" if self.folder else None

    def save(self, progress: dict[str, Any], best: Tensors) -> None:
        """Write the learner, its best state so far, the optimiser and where the run stands."""
        if self._path is None:
            return
        tensors = {f"learner/{name}": value for name, value in self.learner.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in best.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
        # Contiguous copies: safetensors refuses tensors that share memory.
        whole = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
        header = {"progress": json.dumps(progress)}
        write_aside(self._path, lambda part: save_file(whole, str(part), metadata=header))

    def load(self) -> tuple[dict[str, Any], Tensors] | None:
        """Take up a checkpoint in place: where the run stands, and its best state. None if none."""
        if self._path is None or not self._path.is_file():
            return None
        try:
            with safe_open(str(self._path), framework="pt") as file:
                header = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None  # unreadable: start over rather than stop
        learner = _under(tensors, "learner/")
        if _shapes(learner) != _shapes(self.learner.state_dict()):
            return None  # of another editor
        self.learner.load_state_dict(learner)
        moments: dict[int, Tensors] = {}
        for name, value in _under(tensors, "optimizer/").items():
            index, key = name.split("/", 1)
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return json.loads(header["progress"]), _under(tensors, "best/")

    def clear(self) -> None:
        """The run is complete: its checkpoint has served."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # not there, or not empty
                self._path.parent.rmdir()


def _shapes(tensors: Tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _under(tensors: Tensors, prefix: str) -> Tensors:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
