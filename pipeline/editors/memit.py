"""MEMIT (Meng et al. 2023): many facts at once, spread over the MLPs of several blocks.

For each edit z = h + δ is sought at the last of the blocks (in `targets`). Then, block by block,
Δ = R Kᵀ (λ C + K Kᵀ)⁻¹: keys K and residuals R are measured on the model as edited so far, and each
block takes an equal part of what is left to do, z - h over the number of blocks still to come.
The solve is in float64; where there are fewer edits than a key has dimensions, it is the equal
C⁻¹K (λ + KᵀC⁻¹K)⁻¹, whose Cholesky factor of C serves every row.

Shape suffixes: E edits of all rows, R rows, K edits of a row, C texts of an edit, I inputs and O
outputs of a site, D width of the stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.editing import conflicts, locate, sought, targets
from pipeline.editing.depths import depth_of
from pipeline.editing.editor import Edits
from pipeline.editing.locate import Spot
from pipeline.editing.patch import Patch
from pipeline.editing.seeker import Seeker
from pipeline.editing.sought import Sought, Where
from pipeline.editing.updates import Factors, Update
from pipeline.errors import SettingsError
from pipeline.models import Face
from pipeline.models.layouts import blocks, downs, writes_normed
from pipeline.models.lower import Resume
from pipeline.progress import bar
from pipeline.records import Request, normalise


@dataclass(frozen=True, kw_only=True)
class Config(sought.Config):
    """Settings of MEMIT: those of the search for z, and

    Attributes:
        layers: the blocks whose MLPs are edited, in order; None: as published.
        weight: λ, of what the model knows against what it is told; None: as published.
        contexts: which of the model's own texts keys and values are averaged over.
        shared: edits of a row about one subject share one δ (ours). Their keys are almost one key,
            so what is written for one overwrites the other unless a single value serves both.
        conflicts: what happens when edits of one row contradict each other.
    """

    steps: int = 25
    clamp: float = 0.75
    layers: tuple[int, ...] | None = None
    weight: float | None = None
    contexts: locate.Kind = "opened"
    shared: bool = False
    conflicts: conflicts.Conflicts = "refuse"

    def __post_init__(self) -> None:
        """Raises SettingsError for a λ that leaves nothing to keep, and layers out of order."""
        if self.weight is not None and self.weight <= 0:
            raise SettingsError(
                expected="memit.weight above 0",
                found=str(self.weight),
                remedy="The references take 15000 to 20000; small models less.",
            )
        if self.layers is not None and list(self.layers) != sorted(set(self.layers)):
            raise SettingsError(
                expected="memit.layers in rising order",
                found=str(list(self.layers)),
                remedy="Blocks are edited from the first to the last.",
            )


class Editor(Seeker):
    """MEMIT behind the editors' interface."""

    config: Config

    def applies_to(self, face: Face) -> str | None:
        """Causal models of known depth, whose blocks add what their MLP writes as it is."""
        causal = face.kind == "causal"
        if reason := sought.refusal(face, self._layers(face) if causal else ()):
            return reason
        if writes_normed(face.model.config):
            return "its blocks normalise what an MLP writes, so a residual cannot be written there"
        if self._weight(face) is None:
            return "no weight is published for this architecture: set its weight"
        return None

    def edit(self, face: Face, requests: Sequence[Request], k: int = 1) -> Edits:
        """Each k requests as one joint edit; rows are independent of each other."""
        if reason := self.applies_to(face):
            raise sought.refused(reason)
        assert self.moments is not None, "take the moments first"
        keep = conflicts.kept(requests, k, self.config.conflicts)
        keep_E = torch.tensor(keep, device=face.device)
        texts = locate.spots(face, requests, self.moments.contexts[self.config.contexts])
        layers, last = self._layers(face), blocks(face.model)[self._layers(face)[-1]]
        bare = [spots[0] for spots in texts]
        rows_E = [number // k for number in range(len(requests))]
        stream_ED = locate.read(face, bare, [], last).stream_BD
        assert stream_ED is not None
        found, group_E = self._search(face, requests, texts, stream_ED, keep, k)
        aim_ED = stream_ED.to(found.delta_GD.dtype) + found.delta_GD[group_E]
        updates: dict[str, Update] = {}
        alone, within = Resume(), Resume()
        for turn, layer in enumerate(bar(layers, "layers")):
            site, patch = downs(face.model)[layer], Patch(dict(updates))
            if turn:
                stream_ED = locate.read(
                    face, bare, [], last, patch=patch, rows_B=rows_E, resume=alone.to(site)
                ).stream_BD
                assert stream_ED is not None
            left_EO = (aim_ED - stream_ED) / (len(layers) - turn)
            key_EI = _mean_keys(face, texts, site, patch, rows_E, within.to(site))
            key_EI = key_EI * keep_E[:, None]
            right_EI = self._solve(face, site, key_EI.double(), k).to(left_EO.dtype)
            both = Factors(left_EO.unflatten(0, (-1, k)), right_EI.unflatten(0, (-1, k)))
            updates[site] = both.joined(1)
        steps, early = _by_row(found, group_E.tolist(), keep, k)
        return Edits(Patch(updates), steps, early)

    def _search(
        self,
        face: Face,
        requests: Sequence[Request],
        texts: Sequence[Sequence[Spot]],
        stream_ED: Tensor,
        keep: Sequence[bool],
        k: int,
    ) -> tuple[sought.Found, Tensor]:
        """δ of every group of edits that are made, and the group of every edit; 0 for the others.

        What is dropped must not pull at the value of what it contradicts.
        """
        groups: dict[tuple[int, str], int] = {}
        group_E = [0] * len(requests)
        made = [number for number, kept in enumerate(keep) if kept]
        for e in made:
            about = normalise(requests[e].subject) if self.config.shared else str(e)
            group_E[e] = groups.setdefault((e // k, about), len(groups))
        essences, norms = locate.essence(face, requests), sought.norms(stream_ED)
        wanted = [Sought(texts[e], essences[e], group_E[e], norms[e]) for e in made]
        where = Where(self._layers(face)[-1])
        found = targets.optimise(face, wanted, where, stream_ED.shape[1], self.config)
        return found, torch.tensor(group_E, device=face.device)

    def _solve(self, face: Face, site: str, key_EI: Tensor, k: int) -> Tensor:
        """Columns of (λC + KKᵀ)⁻¹K of every row, as rows: E x I, in float64."""
        weight = self._weight(face)
        assert weight is not None
        factor_II = self.factor(site, face)
        key_RKI = key_EI.unflatten(0, (-1, k))
        if k > key_EI.shape[1]:
            second_RII = weight * factor_II @ factor_II.T + key_RKI.transpose(1, 2) @ key_RKI
            right_RIK: Tensor = torch.linalg.solve(second_RII, key_RKI.transpose(1, 2))
            return right_RIK.transpose(1, 2).flatten(0, 1)
        spread_RKI = torch.cholesky_solve(key_EI.T, factor_II).T.unflatten(0, (-1, k))
        inner_RKK = key_RKI @ spread_RKI.transpose(1, 2)
        inner_RKK.diagonal(dim1=1, dim2=2).add_(weight)
        right_RKI: Tensor = torch.linalg.solve(inner_RKK, spread_RKI)
        return right_RKI.flatten(0, 1)

    def _layers(self, face: Face) -> tuple[int, ...]:
        layers = self.config.layers
        return depth_of(face.model.config).memit if layers is None else layers

    def _weight(self, face: Face) -> float | None:
        weight = self.config.weight
        return depth_of(face.model.config).weight if weight is None else weight


def _mean_keys(
    face: Face,
    texts: Sequence[Sequence[Spot]],
    site: str,
    patch: Patch,
    rows_E: Sequence[int],
    resume: Resume,
) -> Tensor:
    """Half the key of the text alone, half the mean over its contexts."""
    count = len(texts[0])
    where = [spot for spots in texts for spot in spots]
    rows_B = [row for row in rows_E for _ in range(count)]
    found = locate.read(face, where, [site], patch=patch, rows_B=rows_B, resume=resume)
    key_ECI: Tensor = found.key_BI[site].unflatten(0, (-1, count))
    bare_EI = key_ECI[:, 0]
    return bare_EI if count == 1 else (bare_EI + key_ECI[:, 1:].mean(1)) / 2


def _by_row(
    found: sought.Found, group_E: Sequence[int], keep: Sequence[bool], k: int
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Most steps of each row's edits that are made, and whether all of them ended early."""
    pairs = list(zip(group_E, keep, strict=True))
    rows = [
        [group for group, kept in pairs[start : start + k] if kept]
        for start in range(0, len(pairs), k)
    ]
    steps = tuple(max(found.steps[group] for group in row) for row in rows)
    return steps, tuple(all(found.reached[group] for group in row) for row in rows)
