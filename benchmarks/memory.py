"""Peak memory of training above the frozen model, against its budget and against the model's size.

In a process of its own on a processor, whose resident memory else holds what came before, and with
an allocator that gives large blocks back at once, so that what is measured is what is held.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.clock import peak_memory
from benchmarks.setup import Setup, setup
from benchmarks.sizes import Size, resized
from benchmarks.training import drawn, make_learner
from pipeline.editing import metalearn
from pipeline.editing.metalearn import Learner, _learn
from pipeline.models import Face
from pipeline.models.layouts import layout_of

_MB = 2**20
_STEPS = 3
_STATE = 4  # parameters, gradients, and Adam's two moments
_PARTS = (3, 6, 9, 12)  # twelfths of a shape's layers and width


@dataclass(frozen=True, kw_only=True)
class Peak:
    """MB above the frozen model, and what the budget is made of."""

    name: str
    peak_mb: float
    parameters_mb: float  # the editor's, once
    activations_mb: float  # saved for backward inside the edited blocks
    model_parameters: int = 0

    @property
    def budget_mb(self) -> float:
        """1.5 times parameters, gradients and Adam's state, and the edited blocks' activations."""
        return 1.5 * _STATE * self.parameters_mb + self.activations_mb


def measure(size: Size, device: torch.device, dtype: torch.dtype, names: list[str]) -> list[Peak]:
    """The peak of a few training steps of each editor."""
    found = []
    for name in names:
        arguments = (size, str(device), str(dtype).removeprefix("torch."), name)
        if device.type == "cpu":
            context = multiprocessing.get_context("spawn")
            with _returning_blocks(), context.Pool(1) as pool:
                values = pool.apply(_in_process, (*arguments, torch.get_num_threads()))
        else:
            values = _in_process(*arguments, torch.get_num_threads())
        found.append(Peak(**values))
    return found


def by_size(size: Size, device: torch.device, dtype: torch.dtype, names: list[str]) -> list[Peak]:
    """The same for models of a quarter of the shape's layers and width, and up to the whole of it.

    Shapes of fewer than twelve layers are measured whole alone.

    MEND's Figures 4 and 6: what an editor's training takes, against the model that it edits.
    """
    shapes = [
        resized(size, layers=max(3, size.layers * part // 12), width=_even(size, part))
        for part in (_PARTS if size.layers >= 12 else _PARTS[-1:])
    ]
    return [peak for shape in shapes for peak in measure(shape, device, dtype, names)]


def _even(size: Size, part: int) -> int:
    """A width in proportion that the heads divide."""
    return max(1, size.width * part // 12 // size.heads) * size.heads


def draw(peaks: list[Peak], path: Path) -> None:
    """Peak memory against the edited model's parameters, both scales logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(5.2, 3.6))
    for name in dict.fromkeys(peak.name for peak in peaks):
        own = [peak for peak in peaks if peak.name == name]
        x = [peak.model_parameters / 1e6 for peak in own]
        axis.loglog(x, [peak.peak_mb for peak in own], "o-", label=name)
    axis.set_xlabel("parameters of the edited model (millions)")
    axis.set_ylabel("peak MB over the frozen model")
    axis.legend(fontsize=8)
    axis.grid(visible=True, which="both", alpha=0.2)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


@contextmanager
def _returning_blocks() -> Iterator[None]:
    """Processes started inside map blocks of a megabyte and more by themselves (glibc)."""
    name = "MALLOC_MMAP_THRESHOLD_"
    before = os.environ.get(name)
    os.environ[name] = str(_MB)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _in_process(size: Size, device: str, dtype: str, name: str, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    where = torch.device(device)
    return asdict(_peak(setup(size, where, getattr(torch, dtype), 1), name))


def _peak(made: Setup, name: str) -> Peak:
    config = metalearn.Config(batch=made.work.edits)
    cases = made.drawn_cases(made.work.edits)
    with peak_memory(made.device) as peak:
        learner = make_learner(made, name)
        optimizer = torch.optim.Adam(learner.groups(config), fused=True)
        for _ in range(_STEPS):
            _learn(made.face, learner, optimizer, drawn(made.face, cases), config)
    parameters = sum(p.numel() * p.element_size() for p in learner.parameters())
    with _saved_in_edited_blocks(learner.adapt(made.face), _sites(learner)) as saved:
        _learn(made.face, learner, optimizer, drawn(made.face, cases), config)
    return Peak(
        name=name,
        peak_mb=peak[0],
        parameters_mb=parameters / _MB,
        activations_mb=sum(saved.values()) / _MB,
        model_parameters=sum(p.numel() for p in made.face.model.parameters()),
    )


def _sites(learner: Learner) -> tuple[str, ...]:
    sites = learner.sites
    assert isinstance(sites, tuple)
    return sites


@contextmanager
def _saved_in_edited_blocks(face: Face, sites: tuple[str, ...]) -> Iterator[dict[int, int]]:
    """Bytes by storage of what autograd keeps from within the blocks that hold a site."""
    names = set()
    for stack in layout_of(face.model.config).stacks:
        for site in sites:
            if site.startswith(f"{stack.blocks}."):
                number = site.removeprefix(f"{stack.blocks}.").split(".")[0]
                names.add(f"{stack.blocks}.{number}")
    weights = {p.untyped_storage().data_ptr() for p in face.model.parameters()}
    saved: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no storage is counted under another's address
    depth = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if depth[0] and storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor.detach())
        return tensor

    def enter(_module: nn.Module, _inputs: object) -> None:
        depth[0] += 1

    def leave(_module: nn.Module, _inputs: object, _output: object) -> None:
        depth[0] -= 1

    with ExitStack() as hooks:
        for name in names:
            block = face.model.get_submodule(name)
            hooks.callback(block.register_forward_pre_hook(enter).remove)
            hooks.callback(block.register_forward_hook(leave).remove)
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        yield saved
