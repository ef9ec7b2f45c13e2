"""Training steps of MEND, KE and ENN, against one edit at a time with full gradients.

Both sides train the same networks. The optimiser runs at rate 0, so that every step starts from
the same numbers; MEND's statistics are as after long training, where one step more changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.clock import Contest, Found
from benchmarks.setup import Setup
from pipeline.editing import metalearn
from pipeline.editing.draws import Draw, draw
from pipeline.editing.metalearn import Learner, _learn
from pipeline.editing.normaliser import Normaliser
from pipeline.editors import enn, ke, mend
from pipeline.models import Face
from pipeline.models.face import Encoded
from pipeline.records import Case, Request

_ALPHA = 1e-3  # edits that show in random models
_SEEN = 1e12  # vectors, as if training had gone on for long
Delta = Mapping[str, Tensor]  # ΔW as O x I, by site


def contests(setup: Setup) -> list[Contest]:
    """One for each learned editor."""
    return [_contest(setup, name) for name in setup.work.learners]


def make_learner(setup: Setup, name: str) -> Learner:
    """An editor's networks, moved off their start: zeros would hide differences."""
    work = setup.work
    learner: Learner
    if name == "mend":
        learner = mend.Mend(setup.face, mend.Config(rank=work.rank, alpha=_ALPHA), 0)
        draws = torch.Generator().manual_seed(0)
        for module in learner.modules():
            if isinstance(module, mend.Block):
                start = torch.randn(module.U.shape, generator=draws) / module.U.shape[0] ** 2
                module.U.data.copy_(start)
        _settle(setup, learner)
    elif name == "ke":
        learner = ke.Ke(setup.face, ke.Config(hidden=work.hidden, scale=10.0), 0)
    else:
        learner = enn.Enn(setup.face, enn.Config())
    return learner


def drawn(face: Face, cases: Sequence[Case]) -> Draw:
    """A step's batch."""
    return draw(face, cases, seed=0, epoch=0)


def _settle(setup: Setup, learner: Learner) -> None:
    learner.observe(setup.face, drawn(setup.face, setup.drawn_cases(setup.work.edits)).edits)
    for module in learner.modules():
        if isinstance(module, Normaliser):
            factor = _SEEN / module.count
            module.count *= factor
            module.squares_D *= factor


def sides_of(setup: Setup, name: str) -> Sides:
    """Both ways to take a step of an editor."""
    config, cases = metalearn.Config(batch=setup.work.edits), setup.drawn_cases(setup.work.edits)
    make = partial(make_learner, setup, name)
    return Sides(setup.face, make, config, cases, PATCHES[name])


def _contest(setup: Setup, name: str) -> Contest:
    work, sides = setup.work, sides_of(setup, name)
    tokens = work.prompt + work.target
    return Contest(
        name=f"{name} training",
        what=f"a training step of {name.upper()}, {work.edits} edits of {tokens} tokens",
        unit="edits",
        ours=sides.ours,
        plain=sides.plain,
        count=work.edits,
        few=work.edits,
        goal=2.5,
    )


class Sides:
    """A step of both kinds, on one set of networks."""

    def __init__(
        self,
        face: Face,
        make: Callable[[], Learner],
        config: metalearn.Config,
        cases: Sequence[Case],
        patch: PlainPatch,
    ) -> None:
        self.face, self.config, self.cases, self.patch = face, config, cases, patch
        self.make = make
        self._made: tuple[Learner, torch.optim.Optimizer] | None = None

    @property
    def made(self) -> tuple[Learner, torch.optim.Optimizer]:
        """Networks and optimiser, made when first asked for: they may be large."""
        if self._made is None:
            learner = self.make()
            groups = [
                {**group, "lr": 0.0, "initial_lr": 0.0} for group in learner.groups(self.config)
            ]
            self._made = learner, torch.optim.Adam(groups, fused=True)
        return self._made

    def ours(self, count: int) -> Found:
        """The engine's step."""
        learner, optimizer = self.made
        batch = drawn(self.face, self.cases[:count])
        losses = _learn(self.face, learner, optimizer, batch, self.config)
        return _results(learner, losses)

    def plain(self, count: int) -> Found:
        """Edit by edit, gradients added up, then one step of the optimiser."""
        learner, optimizer = self.made
        learner.train()
        now = learner.adapt(self.face)
        optimizer.zero_grad(set_to_none=True)
        sums = [0.0, 0.0]
        for item in _items(self.face, self.cases[:count]):
            step = self.patch(now, learner, item)
            weights = plain.edited(now, step)
            rephrase_NV = plain.logits(now, item.rephrase, weights)
            edit = plain.nll(rephrase_NV, item.rephrase)
            if isinstance(learner, enn.Enn):
                before_NV = plain.logits(now, item.bystander)
                with torch.no_grad():
                    original_NV = plain.logits(self.face, item.bystander)
                base = plain.kl(original_NV, before_NV)
                before_NV = before_NV.detach()
            else:
                with torch.no_grad():
                    before_NV = plain.logits(now, item.bystander)
                base = torch.zeros((), device=before_NV.device)
            loc = plain.kl(before_NV, plain.logits(now, item.bystander, weights))
            ((self.config.c_edit * edit + loc + base) / count).backward()
            sums = [sums[0] + edit.item() / count, sums[1] + loc.item() / count]
        nn.utils.clip_grad_norm_(learner.parameters(), self.config.clip)
        optimizer.step()
        return _results(learner, (sums[0], sums[1]))


@dataclass(frozen=True)
class Item:
    request: Request
    edit: Encoded
    rephrase: Encoded
    bystander: Encoded


def _items(face: Face, cases: Sequence[Case]) -> list[Item]:
    found = []
    for case in cases:
        probe = case.unrelated[0]
        pairs = [
            (case.prompt, case.target_new),
            (case.rephrases[0], case.target_new),
            (probe.prompt, probe.target),
        ]
        found.append(Item(case.request(), *face.tokenise(pairs)))
    return found


PlainPatch = Callable[[Face, Learner, Item], Delta]


def mend_delta(face: Face, learner: Learner, item: Item) -> Delta:
    """ΔW = -α Σ δ̃ ũᵀ in full, matrix by matrix."""
    assert isinstance(learner, mend.Mend)
    found = plain.gradients(face, item.edit, learner.sites)
    deltas = {}
    for key, members in learner.members.items():
        for index, site in enumerate(members):
            one = found[site]
            live = (one.u_TI != 0).any(-1) & (one.delta_TO != 0).any(-1)
            u_NI, delta_NO = (x[live].to(learner.alphas.dtype) for x in (one.u_TI, one.delta_TO))
            own_NM = u_NI.new_zeros(len(u_NI), len(members))
            own_NM[:, index] = 1
            u_NI, delta_NO = learner.transforms[key](u_NI, delta_NO, own_NM)
            deltas[site] = -learner.alphas[learner.sites.index(site)] * (delta_NO.T @ u_NI)
    return deltas


def ke_delta(face: Face, learner: Learner, item: Item) -> Delta:
    """ΔW = s σ(η) (∇W ∘ (a bᵀ) + c dᵀ), written out."""
    assert isinstance(learner, ke.Ke)
    found = plain.gradients(face, item.edit, learner.sites)
    condition_1C = learner.conditioner(ke.condition_ids(face.tokenizer, [item.request]))
    deltas = {}
    for site in learner.sites:
        parts = learner.heads[site.replace(".", "/")](condition_1C)
        a_O, b_I, c_O, d_I, gate = (part[0] for part in parts)
        full_OI = found[site].full_OI.to(a_O.dtype)
        masked_OI = full_OI * torch.outer(a_O, b_I) + torch.outer(c_O, d_I)
        deltas[site] = learner.config.scale * gate * masked_OI
    return deltas


def enn_delta(face: Face, learner: Learner, item: Item) -> Delta:
    """ΔW = -α ∇W with the gradient's own graph."""
    assert isinstance(learner, enn.Enn)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        weights = {f"{site}.weight": plain.weight(face, site) for site in learner.sites}
        if not differentiable:
            weights = plain.weights_of(face, learner.sites)
        loss = plain.nll(plain.logits(face, item.edit, weights), item.edit)
        found = torch.autograd.grad(loss, list(weights.values()), create_graph=differentiable)
    return {
        site: -alpha * plain.laid_out(face, site, gradient)
        for site, alpha, gradient in zip(learner.sites, learner.alphas, found, strict=True)
    }


PATCHES: Mapping[str, PlainPatch] = {"mend": mend_delta, "ke": ke_delta, "enn": enn_delta}


def _results(learner: Learner, losses: tuple[float, float]) -> Found:
    found = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for name, parameter in learner.named_parameters():
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad  # the next step makes new ones
    return found
