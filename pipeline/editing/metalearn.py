"""The outer loop that learned editors share (MEND Algorithm 1).

Each step draws a batch of training cases, edits each on its own row, and judges the edited model on
another wording of the edit and on an unrelated example: L = c_edit L_e + L_loc. Everything drawn
comes from (seed, epoch, case id), so a run can be interrupted anywhere and resume to the same bits.

Early stopping watches a frozen draw of held-out *training* cases. The paper watches validation
cases; here those are only ever scored.
"""

from __future__ import annotations

import math
import random
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.editing import checkpoints, groups
from pipeline.editing.draws import Draw, EditBatch, Reader, draw
from pipeline.editing.editor import Material
from pipeline.editing.patch import Patch, applied, join
from pipeline.errors import EditorError, SettingsError
from pipeline.measures import exact, kl, nll
from pipeline.models import Face
from pipeline.models.lower import Lower
from pipeline.progress import bar
from pipeline.records import Case


@dataclass(frozen=True, kw_only=True)
class Config:
    """The outer loop's settings; the defaults are the MEND paper's.

    Attributes:
        steps: most optimisation steps.
        batch: edits per step (the paper accumulates 10), a multiple of k.
        k: edits made together as one (Table 5); the rows of a step are batch / k of these.
        lr, lr_alpha: Adam rates of the editor and of its per-matrix edit rates. The reference
            trains both at `lr`: its second optimiser never sees a gradient.
        decay: a cosine from full rate to none over all steps; the paper keeps rates constant.
        c_edit: weight of the edit loss.
        clip: largest gradient norm.
        heldout: training cases kept aside for early stopping; at least k, at most a fifth of all.
            A fifth that is fewer than k makes one smaller group.
        validate_every, patience: steps between validations, and without a new best before the end.
        warm_up: training cases whose statistics are taken before the first step.
        any_wording: edit with a wording drawn anew each time (ours): more data from few cases.
        flips: share of edits against what a classifier says, drawn anew each time (ours: twice
            the data); 0: every case keeps the label that it has.
        locality: where bystanders come from: "unrelated" ones (the paper), or "hard" ones too:
            neighbours and hard neighbours of the case (ours; the paper leaves it open).
    """

    steps: int = 500_000
    batch: int = 10
    k: int = 1
    lr: float = 1e-6
    lr_alpha: float = 1e-4
    decay: bool = False
    c_edit: float = 0.1
    clip: float = 100.0
    heldout: int = 500
    validate_every: int = 5_000
    patience: int = 20_000
    warm_up: int = 100
    any_wording: bool = False
    flips: float = 0.0
    locality: Literal["unrelated", "hard"] = "unrelated"

    def __post_init__(self) -> None:
        """Raises SettingsError where a step is not of whole groups of k edits, or no share is."""
        if self.k < 1 or self.batch % self.k:
            raise SettingsError(
                expected="`batch` to be a multiple of `k`, the edits made together",
                found=f"batch {self.batch}, k {self.k}",
                remedy="Set `outer.batch` to a multiple of `outer.k`.",
            )
        if not 0 <= self.flips <= 1:
            raise SettingsError(
                expected="`flips`, a share of edits, between 0 and 1",
                found=str(self.flips),
                remedy="Set `outer.flips` to such a share.",
            )

    @property
    def anew(self) -> dict[str, Any]:
        """What is drawn anew whenever a training case comes up, besides its bystander."""
        return {"any_wording": self.any_wording, "flips": self.flips}


class Learner(nn.Module):
    """The part of an editor that is trained."""

    @abstractmethod
    def groups(self, config: Config) -> list[dict[str, Any]]:
        """Parameter groups for Adam."""

    @abstractmethod
    def observe(self, face: Face, edits: EditBatch) -> None:
        """Take statistics of these edits before training starts."""

    @abstractmethod
    def patch(self, face: Face, edits: EditBatch) -> Patch:
        """Edit each row by itself, differentiably in this module's parameters."""

    def joined(self, patch: Patch, k: int) -> Patch:
        """Every k consecutive rows as one edit: their sum."""
        return join(patch, k)

    def adapt(self, face: Face) -> Face:
        """The model as it stands, which edits are made on: `face`, unless it is trained too."""
        return face

    def loss(
        self, edit: Tensor, loc: Tensor, config: Config, drawn: Draw, now_NV: Tensor
    ) -> Tensor:
        """L of Algorithm 1; now_NV are the unedited model's logits on the bystanders."""
        del drawn, now_NV
        return config.c_edit * edit + loc

    def validated(self, row: Row) -> None:
        """Hear of a validation, before the state is kept (KE's margin)."""


Row = dict[str, float]  # of the learning curve


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands; plain values, so that a checkpoint can hold it as JSON."""

    step: int = 0
    seconds: float = 0.0
    best: float = math.inf  # the lowest validation loss so far
    best_step: int = 0
    curve: Sequence[Row] = ()

    def over(self, config: Config) -> bool:
        """Whether it is too long since the last best."""
        return self.step > 0 and self.step - self.best_step >= config.patience


def train(face: Face, learner: Learner, material: Material, config: Config) -> list[Row]:
    """Train `learner` in place; it ends as the best it was on the held-out training cases.

    Returns:
        The curve: step, seconds, loss, loss_edit, loss_loc (means since the last row), val_loss,
        val_success.

    Raises:
        EditorError: the loss was never finite.
    """
    taught, kept = _hold_out(material.cases, max(config.heldout, config.k), material.seed)
    k = min(config.k, len(kept))
    draws = partial(draw, Reader(face), seed=material.seed, hard=config.locality == "hard")
    frozen = [draws(part, epoch=-1, k=k) for part in groups.chunks(kept, 50, k)]
    optimizer = torch.optim.Adam(learner.groups(config), fused=True)
    store = checkpoints.Store(material.checkpoints, learner, optimizer)
    at = Progress()
    best: dict[str, Tensor] = {}
    if found := store.load():
        at, best = Progress(**found[0]), found[1]
    else:
        for part in groups.chunks(taught[: config.warm_up], config.batch):
            learner.observe(face, draws(part, epoch=-2).edits)
    steps = _steps(taught, config, material.seed, config.steps if at.over(config) else at.step)
    began, losses = time.monotonic() - at.seconds, []
    for step, epoch, cases in bar(steps, "fit", config.steps - at.step):
        _set_rates(optimizer, config, step)
        drawn = draws(cases, epoch=epoch, k=config.k, **config.anew)
        losses.append(_learn(face, learner, optimizer, drawn, config))
        if (step + 1) % config.validate_every and step + 1 < config.steps:
            continue
        row = validate(face, learner, frozen, config)
        row |= {"step": step + 1, "seconds": time.monotonic() - began, **_means(losses, config)}
        losses = []
        learner.validated(row)
        at = replace(at, step=step + 1, seconds=row["seconds"], curve=[*at.curve, row])
        if row["val_loss"] < at.best:
            at, best = replace(at, best=row["val_loss"], best_step=step + 1), _copy(learner)
        store.save(asdict(at), best)
        if at.over(config):
            break
    store.clear()
    if not best:
        raise EditorError(
            expected="a finite validation loss in training",
            found=f"none in {at.step} steps",
            remedy="Lower the editor's `lr` or `c_edit`.",
        )
    learner.load_state_dict(best)
    return list(at.curve)


def _learn(
    face: Face, learner: Learner, optimizer: torch.optim.Optimizer, drawn: Draw, config: Config
) -> tuple[float, float]:
    """One step of Algorithm 1; returns the batch's mean edit and locality losses."""
    learner.train()
    optimizer.zero_grad(set_to_none=True)  # as large as the editor, and no use from here on
    now = learner.adapt(face)
    # k rows that follow each other see the same edit, made of all k.
    patch = learner.joined(learner.patch(now, drawn.edits), drawn.k)
    lower = Lower(now.model, patch.updates)
    with lower.kept():
        now_NV = now.logits(drawn.bystanders)  # without a graph, unless the model is trained too
    with applied(now.model, patch):
        loss_edit = nll(now.logits(drawn.rephrases), drawn.rephrases).mean()
        with lower.reused():
            after_NV = now.logits(drawn.bystanders)
        loss_loc = kl(now_NV.detach(), after_NV, drawn.bystanders).mean()
        loss = learner.loss(loss_edit, loss_loc, config, drawn, now_NV)
        del now_NV, after_NV  # whole passages of logits: the graph keeps what it needs of them
        loss.backward()
    norm = nn.utils.clip_grad_norm_(learner.parameters(), config.clip)
    if torch.isfinite(norm):  # the reference skips broken steps too
        optimizer.step()
    return loss_edit.item(), loss_loc.item()


@torch.no_grad()
def validate(face: Face, learner: Learner, frozen: Sequence[Draw], config: Config) -> Row:
    """Mean loss c_edit L_e + L_loc and edit success on another wording, over frozen draws."""
    learner.eval()
    face = learner.adapt(face)
    losses, successes = [], []
    for drawn in frozen:
        patch = learner.joined(learner.patch(face, drawn.edits).detach(), drawn.k)
        lower = Lower(face.model, patch.updates)
        with lower.kept():
            before_NV = face.logits(drawn.bystanders)
        with applied(face.model, patch):
            after_NV = face.logits(drawn.rephrases)
            loss_B = config.c_edit * nll(after_NV, drawn.rephrases)
            with lower.reused():
                loss_B += kl(before_NV, face.logits(drawn.bystanders), drawn.bystanders)
        losses.append(loss_B)
        successes.append(exact(after_NV, drawn.rephrases))
    return {
        "val_loss": torch.cat(losses).mean().item(),
        "val_success": torch.cat(successes).mean().item(),
    }


def _hold_out(cases: Sequence[Case], count: int, seed: int) -> tuple[list[Case], list[Case]]:
    shuffled = sorted(cases, key=lambda case: case.id)
    random.Random(f"{seed}/hold out").shuffle(shuffled)
    count = min(count, max(1, len(shuffled) // 5))
    return shuffled[count:], shuffled[:count]


def _steps(
    cases: Sequence[Case], config: Config, seed: int, done: int
) -> Iterator[tuple[int, int, list[Case]]]:
    """(step, epoch, cases) from the step after `done` on; an epoch is one seeded permutation."""
    per_epoch = max(1, len(cases) // config.batch)
    for step in range(done, config.steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == done:
            order = list(cases)
            random.Random(f"{seed}/epoch {epoch}").shuffle(order)
        yield step, epoch, order[place * config.batch : (place + 1) * config.batch]


def _set_rates(optimizer: torch.optim.Optimizer, config: Config, step: int) -> None:
    factor = (1 + math.cos(math.pi * step / config.steps)) / 2 if config.decay else 1.0
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def _means(losses: Sequence[tuple[float, float]], config: Config) -> Row:
    edit, loc = (sum(part) / len(losses) for part in zip(*losses, strict=True))
    return {"loss": config.c_edit * edit + loc, "loss_edit": edit, "loss_loc": loc}


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
