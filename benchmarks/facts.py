"""MEMIT's values, its keys and update, and ROME.

The straightforward side is the published code's way: an edit's texts in one batch, the whole model
with all its logits at each step, dense weights, and a solve with the whole moment.

Shape suffixes: B texts, D width of the stream, I inputs and O outputs of a site, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import material, plain
from benchmarks.clock import Contest, Found
from benchmarks.setup import Setup
from pipeline.editing import locate, sought, targets
from pipeline.editing.locate import Spot
from pipeline.editing.moments import Moments
from pipeline.editing.patch import linear_map, weight_OI, weights_of
from pipeline.editing.sought import Sought, Where
from pipeline.editors import memit, rome
from pipeline.models import Face
from pipeline.models.layouts import blocks, downs
from pipeline.records import Request

_SEED = 0


def contests(setup: Setup) -> list[Contest]:
    """z vectors, keys and update, ROME."""
    if setup.face.kind != "causal":
        return []
    return [_values(setup), _update(setup), _rome(setup)]


def make_moments(face: Face, layers: Sequence[int]) -> Moments:
    """Second moments drawn at random, and contexts that the model wrote."""
    draws = torch.Generator().manual_seed(_SEED)
    second = {}
    for layer in layers:
        site = downs(face.model)[layer]
        width = weight_OI(linear_map(face.model, site)).shape[1]
        keys = torch.randn(256, width, generator=draws, dtype=torch.float64)
        second[site] = (keys.T @ keys / 256 + torch.eye(width)).to(face.device)
    contexts = locate.write_contexts(face, locate.Config(), _SEED)
    return Moments(second, 256, contexts, "random", "random")


@dataclass(frozen=True)
class _Searched:
    """What the search for values starts from."""

    wanted: list[Sought]
    where: Where
    width: int


def _requests(setup: Setup, count: int) -> list[Request]:
    return [case.request() for case in material.facts(setup.size, count)]


def _sought(face: Face, requests: Sequence[Request], contexts: Sequence[str], last: int) -> Any:
    """MEMIT's texts and present values."""
    texts = locate.spots(face, requests, contexts)
    stream = locate.read(face, [t[0] for t in texts], [], blocks(face.model)[last]).stream_BD
    assert stream is not None
    essences, norms = locate.essence(face, requests), sought.norms(stream)
    wanted = [Sought(texts[e], essences[e], e, norms[e]) for e in range(len(requests))]
    return _Searched(wanted, Where(last), stream.shape[1])


def _values(setup: Setup) -> Contest:
    face, work = setup.face, setup.work
    requests, last = _requests(setup, work.facts), work.layers[-1]
    contexts = locate.write_contexts(face, locate.Config(), _SEED)["opened"]
    config = sought.Config(steps=work.z_steps, clamp=0.75)

    def ours(count: int) -> Found:
        found = _sought(face, requests[:count], contexts, last)
        return {
            "z": targets.optimise(face, found.wanted, found.where, found.width, config).delta_GD
        }

    def slow(count: int) -> Found:
        deltas = []
        for request in requests[:count]:
            found = _sought(face, [request], contexts, last)
            deltas.append(_search(face, found.wanted[0], blocks(face.model)[last], config))
        return {"z": torch.stack(deltas)}

    return Contest(
        name="memit values",
        what=f"MEMIT's z vectors of {work.facts} edits, {work.z_steps} steps",
        unit="edits",
        ours=ours,
        plain=slow,
        count=work.facts,
        few=work.few_facts,
        goal=6.0,
        widen=face.model,
    )


def _search(face: Face, wanted: Sought, module: str, config: sought.Config) -> Tensor:
    """δ of one edit by torch's Adam, the whole model and all logits at every step."""
    texts = [spot.encoded for spot in (*wanted.texts, wanted.essence)]
    at = [spot.at for spot in (*wanted.texts, wanted.essence)]
    delta_D: Tensor | None = None
    optimizer: torch.optim.Optimizer | None = None
    rows = torch.arange(len(at), device=face.device)
    at_B = torch.tensor(at, device=face.device)

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        nonlocal delta_D, optimizer
        put_out = output[0] if isinstance(output, tuple) else output
        if delta_D is None:
            delta_D = put_out.new_zeros(put_out.shape[-1], requires_grad=True)
            optimizer = torch.optim.Adam([delta_D], lr=config.lr)
        changed = put_out.index_put((rows, at_B), delta_D.expand(len(at), -1), accumulate=True)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = face.model.get_submodule(module).register_forward_hook(add)
    essence_V: Tensor | None = None
    try:
        for step in range(config.steps):
            with torch.enable_grad():
                logits = plain.batch_logits(face, texts, None)
                now_V = plain.wide(logits[-1][0]).log_softmax(-1)
                essence_V = now_V.detach() if essence_V is None else essence_V
                pairs = zip(logits[:-1], texts[:-1], strict=True)
                losses = [plain.nll(text_NV, text) for text_NV, text in pairs]
                drift = (now_V.exp() * (now_V - essence_V)).sum()
                assert delta_D is not None
                assert optimizer is not None
                decay = config.decay * delta_D.norm() / wanted.norm**2
                loss = torch.stack(losses).mean() + config.kl * drift + decay
                if loss.item() < config.enough or step + 1 == config.steps:
                    break
                optimizer.zero_grad()
                loss.backward()
            optimizer.step()
            with torch.no_grad():
                most = config.clamp * wanted.norm
                if delta_D.norm() > most:
                    delta_D *= most / delta_D.norm()
    finally:
        handle.remove()
    assert delta_D is not None
    return delta_D.detach()


def _update(setup: Setup) -> Contest:
    face, work = setup.face, setup.work
    requests, layers = _requests(setup, work.update_facts), work.layers
    moments = make_moments(face, layers)
    config = memit.Config(layers=layers, weight=100.0, steps=1)
    draws = torch.Generator().manual_seed(_SEED)
    last = blocks(face.model)[layers[-1]]
    width = face.model.config.get_text_config().hidden_size
    aims = (0.1 * torch.randn(work.update_facts, width, generator=draws)).to(face.device)

    def ours(count: int) -> Found:
        editor = _Given(config, aims[:count])
        editor.take(moments)
        found = weights_of(editor.edit(face, requests[:count], k=count).patch).updates
        return {site: update.dense_ROI()[0] for site, update in found.items()}

    def slow(count: int) -> Found:
        texts = locate.spots(face, requests[:count], moments.contexts["opened"])
        aim_ED = _streams(face, texts, last, {}) + aims[:count]
        delta: dict[str, Tensor] = {}
        for turn, layer in enumerate(layers):
            site = downs(face.model)[layer]
            weights = plain.edited(face, delta)
            left_EO = (aim_ED - _streams(face, texts, last, weights)) / (len(layers) - turn)
            key_EI = torch.stack([_mean_key(face, t, site, weights) for t in texts]).double()
            second_II = 100.0 * moments.second_II[site] + key_EI.T @ key_EI
            right_IE = torch.linalg.solve(second_II, key_EI.T)
            delta[site] = left_EO.T @ right_IE.T.to(left_EO.dtype)
        return delta

    return Contest(
        name="memit update",
        what=f"MEMIT's keys and update, {work.update_facts} edits, {len(layers)} layers",
        unit="edits",
        ours=ours,
        plain=slow,
        count=work.update_facts,
        few=work.update_facts,
        goal=4.0,
    )


class _Given(memit.Editor):
    """MEMIT with values that are there already."""

    def __init__(self, config: memit.Config, delta_ED: Tensor) -> None:
        super().__init__(config)
        self.delta_ED = delta_ED

    def _search(self, *_args: Any) -> tuple[sought.Found, Tensor]:
        count = len(self.delta_ED)
        found = sought.Found(self.delta_ED, (0,) * count, (True,) * count)
        return found, torch.arange(count, device=self.delta_ED.device)


def _streams(
    face: Face, texts: Sequence[Sequence[Spot]], block: str, weights: Mapping[str, Tensor]
) -> Tensor:
    """What a block puts out at each edit's subject."""
    found = [plain.read(face, [t[0].encoded.ids], [t[0].at], block, weights)[0] for t in texts]
    return torch.stack(found)


def _mean_key(
    face: Face, texts: Sequence[Spot], site: str, weights: Mapping[str, Tensor]
) -> Tensor:
    """Half the key of the text alone, half the mean over its contexts."""
    key_BI = plain.read(face, [t.encoded.ids for t in texts], [t.at for t in texts], site, weights)
    return (key_BI[0] + key_BI[1:].mean(0)) / 2


def _rome(setup: Setup) -> Contest:
    face, work = setup.face, setup.work
    requests, layer = _requests(setup, work.rome_facts), work.layers[-1]
    moments, site = make_moments(face, [layer]), downs(face.model)[layer]
    config = rome.Config(layer=layer, steps=work.rome_steps)
    editor = rome.Editor(config)
    editor.take(moments)
    second_II = moments.second_II[site]
    ridge = config.ridge * second_II.diagonal().mean()
    second_II = second_II + ridge * torch.eye(len(second_II)).to(second_II)
    inverse_II = torch.linalg.inv(second_II)  # both sides keep what they need of it

    def ours(count: int) -> Found:
        update = weights_of(editor.edit(face, requests[:count]).patch).updates[site]
        return {"update": update.dense_ROI()}

    def slow(count: int) -> Found:
        updates = []
        for request in requests[:count]:
            (texts,) = locate.spots(face, [request], moments.contexts["free"])
            ids, at = [t.encoded.ids for t in texts], [t.at for t in texts]
            key_BI = plain.read(face, ids, at, site)
            mean_I = key_BI.mean(0)
            with torch.no_grad():
                present_O, mean_O = linear_map(face.model, site)(
                    torch.stack([key_BI[0], mean_I])[:, None]
                )[:, 0]
            essence = locate.essence(face, [request])[0]
            wanted = Sought(texts, essence, 0, sought.norms(present_O[None])[0])
            value_O = present_O + _search(face, wanted, site, config)
            right_I = inverse_II @ mean_I.double()
            right_I = (right_I / (right_I @ mean_I.double())).to(value_O.dtype)
            updates.append(torch.outer(value_O - mean_O, right_I))
        return {"update": torch.stack(updates)}

    return Contest(
        name="rome",
        what=f"edits of ROME, {work.rome_steps} steps, 21 texts each",
        unit="edits",
        ours=ours,
        plain=slow,
        count=work.rome_facts,
        few=work.few_rome_facts,
        goal=6.0,
        widen=face.model,
    )
