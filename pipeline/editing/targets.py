"""What an MLP or a block should put out at a subject's last token: the v of ROME, the z of MEMIT.

A value is the present one plus δ, found by Adam (ROME Eq. 4, and as its code has it): the new
object becomes likely after the prompt and after the prompt in its contexts, while what the model
makes of "{subject} is a", read at the subject's last token, stays as it was. Values of many edits
are optimised together: each has its own δ, its own Adam state and its own end, so that company
changes none of them.

Shape suffixes:
    G values (δ)    D their width    E edits    B rows (texts)    N target tokens
    V vocabulary    L values that still move    M of those, the ones moved now
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.editing.patch import Intervention, applied, linear_map
from pipeline.editing.sought import Config, Found, Sought, Where
from pipeline.measures import nll
from pipeline.models import Face, tail
from pipeline.models.face import Batch, Encoded
from pipeline.models.tail import Tail


def optimise(
    face: Face,
    sought: Sequence[Sought],
    where: Where,
    width: int,
    config: Config,
    patch: Intervention | None = None,
) -> Found:
    """δ of every group.

    Args:
        face: a causal model, unedited.
        sought: edits, whose groups are numbered from 0 on.
        where: what δ is added to.
        width: of δ.
        config: the search's settings.
        patch: edits that the model has already; edit e sees row `sought[e].row`.
    """
    groups: dict[int, list[Sought]] = {}
    for edit in sought:
        groups.setdefault(edit.group, []).append(edit)
    whole = torch.zeros(len(groups), width, dtype=_dtype(face), device=face.device)
    steps, reached = [0] * len(groups), [False] * len(groups)
    for part in _parts(groups, config.rows):
        edits = [replace(e, group=n) for n, group in enumerate(part) for e in groups[group]]
        found = _Run(face, edits, where, config, patch).search(width)
        for group, (delta_D, taken, early) in zip(part, found, strict=True):
            whole[group], steps[group], reached[group] = delta_D, taken, early
    return Found(whole, tuple(steps), tuple(reached))


def _parts(groups: Mapping[int, Sequence[Sought]], rows: int) -> list[list[int]]:
    """Groups with texts of similar length, together about so many: little padding."""
    parts: list[list[int]] = []
    size = rows + 1
    for group in sorted(groups, key=lambda group: (max(map(_length, groups[group])), group)):
        more = sum(len(edit.texts) + 1 for edit in groups[group])
        if size + more > rows:
            parts.append([])
            size = 0
        parts[-1].append(group)
        size += more
    return parts


def _length(edit: Sought) -> int:
    """Tokens of an edit's longest text, from the one that δ is added at."""
    return max(spot.encoded.positions[-1] - spot.at for spot in edit.texts)


class _Run:
    """Some values, side by side."""

    def __init__(
        self,
        face: Face,
        sought: Sequence[Sought],
        where: Where,
        config: Config,
        patch: Intervention | None,
    ) -> None:
        self.face, self.where, self.config, self.patch = face, where, config, patch
        self.sought = sought
        self.tail, self.owner = self._cut(), self._owners()
        with torch.no_grad():
            essences = range(self.tail.rows - len(self.sought), self.tail.rows)
            before_EV = self._logits(self.tail.select(essences), essences, None)
            self.essence_EV = _log_softmax(before_EV)

    def search(self, width: int) -> list[tuple[Tensor, int, bool]]:
        """Adam until every value is good enough or out of steps: δ, moves, whether it was."""
        groups = self.sought[-1].group + 1
        norm_G = self._norms(groups)
        delta_GD = norm_G.new_zeros(groups, width)
        mean_GD, square_GD = torch.zeros_like(delta_GD), torch.zeros_like(delta_GD)
        live, steps, reached = list(range(groups)), [0] * groups, [False] * groups
        view = _View(self, live)
        for step in range(self.config.steps):
            live_L = torch.tensor(live, device=self.face.device)
            last = step + 1 == self.config.steps
            loss_L, gradient_LD = view.look(delta_GD, norm_G, last=last)
            ended = [bool(end) for end in (loss_L < self.config.enough).tolist()]
            for group, end in zip(live, ended, strict=True):
                steps[group], reached[group] = step, end
            moves_L = torch.tensor([not (end or last) for end in ended], device=self.face.device)
            moving_M = live_L[moves_L]
            _adam(delta_GD, mean_GD, square_GD, moving_M, gradient_LD[moves_L], step, self.config)
            _clamp(delta_GD, moving_M, norm_G * self.config.clamp)
            live = moving_M.tolist()
            if not live:
                break
            if any(ended):
                view = _View(self, live)
        return [(delta_GD[g], steps[g], reached[g]) for g in range(groups)]

    def _cut(self) -> Tail:
        """All texts of all edits, then all essences."""
        where = [spot for edit in self.sought for spot in edit.texts]
        where += [edit.essence for edit in self.sought]
        encoded: list[Encoded] = [spot.encoded for spot in where]
        with self._edited(range(len(where)), self._rows()):
            return tail.cut(self.face, encoded, [spot.at for spot in where], self.where.first)

    def _rows(self) -> list[int]:
        """The patch's row of every text."""
        rows = [edit.row for edit in self.sought for _ in edit.texts]
        return rows + [edit.row for edit in self.sought]

    def _owners(self) -> list[int]:
        """The edit of every text."""
        owner = [number for number, edit in enumerate(self.sought) for _ in edit.texts]
        return owner + list(range(len(self.sought)))

    def _norms(self, groups: int) -> Tensor:
        """Mean ‖present value‖ of each group's edits."""
        of: list[list[float]] = [[] for _ in range(groups)]
        for edit in self.sought:
            of[edit.group].append(edit.norm)
        means = [sum(norms) / len(norms) for norms in of]
        return torch.tensor(means, dtype=_dtype(self.face), device=self.face.device)

    def _edited(self, texts: Sequence[int], rows: Sequence[int]) -> ExitStack:
        stack = ExitStack()
        if self.patch is not None and self.patch.rows:
            edit_B = torch.tensor([rows[text] for text in texts], device=self.face.device)
            stack.enter_context(applied(self.face.model, self.patch, edit_B))
        return stack

    def _logits(
        self,
        texts: Tail,
        numbers: Sequence[int],
        delta_BD: Tensor | None,
        backward: _Use | None = None,
    ) -> Tensor:
        """logits_NV with δ at the token; what `backward` makes of them happens inside."""
        with self._edited(numbers, self._rows()) as stack:
            change: Callable[[Tensor], Tensor] | None = None
            if delta_BD is not None and self.where.site is None:
                change = _Adder(delta_BD, texts.rows)
            elif delta_BD is not None and self.where.site is not None:
                hook = _Adder(delta_BD, texts.rows).after
                site = linear_map(self.face.model, self.where.site)
                stack.callback(site.register_forward_hook(hook).remove)
            logits_NV = tail.logits(self.face, texts, change)
            return backward(logits_NV) if backward else logits_NV


_Use = Callable[[Tensor], Tensor]


class _View:
    """The texts of the values that still move."""

    def __init__(self, run: _Run, live: Sequence[int]) -> None:
        self.run = run
        kept = set(live)
        place = {group: number for number, group in enumerate(live)}
        groups = [run.sought[owner].group for owner in run.owner]
        self.numbers = [number for number, group in enumerate(groups) if group in kept]
        whole = len(self.numbers) == run.tail.rows
        self.tail = run.tail if whole else run.tail.select(self.numbers)
        self.batch: Batch = self.tail.batch()
        edits = [e for e, edit in enumerate(run.sought) if edit.group in kept]
        device = run.face.device
        self.live_L = torch.tensor(live, device=device)
        self.group_B = torch.tensor([groups[n] for n in self.numbers], device=device)
        local = [place[groups[number]] for number in self.numbers]
        self.local_B = torch.tensor(local, device=device)
        self.texts = len(self.numbers) - len(edits)
        # An edit's loss is the mean over its texts; a group's is the sum over its edits.
        counts = [len(run.sought[run.owner[n]].texts) for n in self.numbers[: self.texts]]
        self.weight_B = 1 / torch.tensor(counts, dtype=_dtype(run.face), device=device)
        self.essence_EV = run.essence_EV[torch.tensor(edits, device=device)]
        self.edits_L = torch.bincount(self.local_B[self.texts :], minlength=len(live))

    def look(self, delta_GD: Tensor, norm_G: Tensor, *, last: bool) -> tuple[Tensor, Tensor]:
        """Mean loss of each live value's edits, and the gradient of their sum (not at the last)."""
        delta_LD = delta_GD[self.live_L].requires_grad_()
        size_L = delta_LD.detach().norm(dim=1)
        config = self.run.config
        found: list[Tensor] = []

        def use(logits_NV: Tensor) -> Tensor:
            loss_L = self._losses(logits_NV)
            found.append(loss_L.detach())
            if last:
                return torch.zeros_like(delta_LD)
            (gradient_LD,) = torch.autograd.grad(loss_L.sum(), delta_LD)
            return gradient_LD

        with torch.set_grad_enabled(not last):
            delta_BD = delta_LD[self.local_B]
            gradient_LD = self.run._logits(self.tail, self.numbers, delta_BD, use)
        scale_L = config.decay * self.edits_L / norm_G[self.live_L] ** 2
        # ‖δ‖ has no gradient at 0, where Adam starts: there the references' is 0 too.
        direction_LD = delta_LD.detach() / size_L.clamp(min=1e-30)[:, None]
        loss_L = (found[0] + scale_L * size_L) / self.edits_L
        return loss_L, gradient_LD + scale_L[:, None] * direction_LD

    def _losses(self, logits_NV: Tensor) -> Tensor:
        loss_B = nll(logits_NV, self.batch)[: self.texts].to(self.weight_B.dtype) * self.weight_B
        now_EV = _log_softmax(logits_NV[self.batch.row_N >= self.texts])
        # KL(edited || unedited), as both references have it.
        drift_E = (now_EV.exp() * (now_EV - self.essence_EV)).sum(-1)
        loss_L = loss_B.new_zeros(len(self.live_L)).index_add(0, self.local_B[: self.texts], loss_B)
        part_E = self.run.config.kl * drift_E.to(loss_L.dtype)
        return loss_L.index_add(0, self.local_B[self.texts :], part_E)


@dataclass(frozen=True)
class _Adder:
    """Adds δ at each text's token, which is column 0."""

    delta_BD: Tensor
    rows: int

    def __call__(self, value_BSD: Tensor) -> Tensor:
        first_BD = value_BSD[:, 0] + self.delta_BD.to(value_BSD.dtype)
        return torch.cat([first_BD[:, None], value_BSD[:, 1:]], dim=1)

    def after(self, _module: object, _inputs: object, output: Tensor) -> Tensor:
        return self(output.reshape(self.rows, -1, output.shape[-1])).view_as(output)


def _adam(
    delta_GD: Tensor,
    mean_GD: Tensor,
    square_GD: Tensor,
    at_M: Tensor,
    gradient_MD: Tensor,
    step: int,
    config: Config,
) -> None:
    """One step of torch.optim.Adam with its defaults, on some rows, in place."""
    mean_MD = mean_GD[at_M].lerp(gradient_MD, 0.1)
    square_MD = 0.999 * square_GD[at_M] + 0.001 * gradient_MD**2
    mean_GD[at_M], square_GD[at_M] = mean_MD, square_MD
    root_MD = (square_MD / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
    delta_GD[at_M] -= config.lr / (1 - 0.9 ** (step + 1)) * mean_MD / root_MD


def _clamp(delta_GD: Tensor, at_M: Tensor, most_G: Tensor) -> None:
    size_M = delta_GD[at_M].norm(dim=1)
    shrink_M = (most_G[at_M] / size_M.clamp(min=1e-30)).clamp(max=1.0)
    delta_GD[at_M] *= shrink_M[:, None]


def _log_softmax(logits_NV: Tensor) -> Tensor:
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return torch.log_softmax(logits_NV.to(wide), dim=-1)


def _dtype(face: Face) -> torch.dtype:
    return torch.promote_types(face.model.dtype, torch.float32)
