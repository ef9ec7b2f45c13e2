"""ROME (Meng et al. 2022): one fact is one rank-one update of one MLP's output map.

Ŵ = W + Λ (C⁻¹k*)ᵀ with Λ = (v* - W k*) / ((C⁻¹k*)ᵀ k*), so that Ŵ k* = v* while the answers to the
keys of ordinary text, whose second moment is C, move least (Eq. 2). k* is the mean key over
contexts (Eq. 3), v* the value that makes the new object likely (Eq. 4, in `targets`).

The published code divides by the product with the key of the bare prompt, where the formula has the
mean key: an edit whose two keys differ then disables the model (Gupta et al. 2024, "Rebuilding
ROME"). `consistent_keys` has the mean key everywhere.

k edits of a row are made one after another, each on the model as the ones before it left it.

Shape suffixes: R rows, C texts of an edit, I inputs, O outputs of the site, K terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.editing import conflicts, locate, sought, targets
from pipeline.editing.depths import depth_of
from pipeline.editing.editor import Edits
from pipeline.editing.locate import Spot
from pipeline.editing.patch import Patch, applied, linear_map
from pipeline.editing.seeker import Seeker
from pipeline.editing.sought import Sought, Where
from pipeline.editing.updates import Factors
from pipeline.models import Face
from pipeline.models.layouts import downs
from pipeline.progress import bar
from pipeline.records import Request


@dataclass(frozen=True, kw_only=True)
class Config(sought.Config):
    """Settings of ROME: those of the search for v*, and

    Attributes:
        layer: the block whose MLP is edited; None: as published for the architecture.
        consistent_keys: the mean key everywhere (r-ROME), or the published code's mixture.
        contexts: which of the model's own texts keys and values are averaged over.
        conflicts: what happens when edits of one row contradict each other.
    """

    layer: int | None = None
    consistent_keys: bool = True
    contexts: locate.Kind = "free"
    conflicts: conflicts.Conflicts = "refuse"


class Editor(Seeker):
    """ROME behind the editors' interface."""

    config: Config

    def applies_to(self, face: Face) -> str | None:
        """Causal models of which it is known, or set, where they are edited."""
        return sought.refusal(face, [self._layer(face)] if face.kind == "causal" else [])

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """One rank-one update for each request; those of a row follow each other."""
        if reason := self.applies_to(face):
            raise sought.refused(reason)
        keep = conflicts.kept(requests, k, self.config.conflicts)
        site = downs(face.model)[self._depth(face)]
        patch = Patch({})
        steps, reached = [0] * (len(requests) // k), [True] * (len(requests) // k)
        for turn in bar(range(k), "rank-one updates"):
            update, found = self._update(face, requests[turn::k], site, patch)
            made = keep[turn::k]
            kept_R = torch.tensor(made, device=face.device)
            update = Factors(update.left_RKO * kept_R[:, None, None], update.right_RKI)
            patch = Patch({site: _both(patch, site, update)})
            for row in (row for row, kept in enumerate(made) if kept):
                steps[row] += found.steps[row]
                reached[row] = reached[row] and found.reached[row]
        whole = patch.updates[site]
        assert isinstance(whole, Factors)
        return Edits(Patch({site: whole.joined(1)}), tuple(steps), tuple(reached))

    def _update(
        self, face: Face, requests: Sequence[Request], site: str, patch: Patch
    ) -> tuple[Factors, sought.Found]:
        """Edit r made on the model with row r of a patch."""
        assert self.moments is not None, "take the moments first"
        texts = locate.spots(face, requests, self.moments.contexts[self.config.contexts])
        count = len(texts[0])
        where = [spot for spots in texts for spot in spots]
        rows_B = [row for row in range(len(requests)) for _ in range(count)]
        key_BI = locate.read(face, where, [site], patch=patch, rows_B=rows_B).key_BI[site]
        bare_RI, mean_RI = key_BI[::count], key_BI.unflatten(0, (-1, count)).mean(1)
        present_RO = _out(face, site, bare_RI, patch)
        found = self._search(face, requests, texts, present_RO, patch)
        value_RO = present_RO + found.delta_GD
        key_RI = mean_RI if self.config.consistent_keys else bare_RI
        if self.config.consistent_keys:
            left_RO = value_RO - _out(face, site, mean_RI, patch)
        else:
            left_RO = found.delta_GD
        right_IR = torch.cholesky_solve(mean_RI.double().T, self.factor(site, face))
        right_RI = right_IR.T / (right_IR.T * key_RI.double()).sum(1, keepdim=True)
        dtype = left_RO.dtype
        return Factors(left_RO[:, None], right_RI.to(dtype)[:, None]), found

    def _search(
        self,
        face: Face,
        requests: Sequence[Request],
        texts: Sequence[Sequence[Spot]],
        present_RO: Tensor,
        patch: Patch,
    ) -> sought.Found:
        essences = locate.essence(face, requests)
        wanted = [
            Sought(spots, essence, number, norm, number)
            for number, (spots, essence, norm) in enumerate(
                zip(texts, essences, sought.norms(present_RO), strict=True)
            )
        ]
        depth = self._depth(face)
        where = Where(depth, downs(face.model)[depth])
        return targets.optimise(face, wanted, where, present_RO.shape[1], self.config, patch)

    def _layer(self, face: Face) -> int | None:
        layer = self.config.layer
        return depth_of(face.model.config).rome if layer is None else layer

    def _depth(self, face: Face) -> int:
        layer = self._layer(face)
        assert layer is not None
        return layer


def _out(face: Face, site: str, key_RI: Tensor, patch: Patch) -> Tensor:
    """What a site answers to some keys, key r under the patch's row r."""
    with torch.no_grad(), ExitStack() as stack:
        if patch.rows:
            stack.enter_context(applied(face.model, patch))
        output = linear_map(face.model, site)(key_RI[:, None])[:, 0]
    assert isinstance(output, Tensor)
    return output.to(torch.promote_types(output.dtype, torch.float32))


def _both(patch: Patch, site: str, update: Factors) -> Factors:
    """A patch's terms and one more."""
    before = patch.updates.get(site)
    if before is None:
        return update
    assert isinstance(before, Factors)
    return Factors(
        torch.cat([before.left_RKO, update.left_RKO], dim=1),
        torch.cat([before.right_RKI, update.right_RKI], dim=1),
    )
