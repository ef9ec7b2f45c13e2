"""FT-W and FT-L against torch's Adam on the weights themselves."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from cases import make_cases
from conftest import make_face, pairs_for
from transformers.pytorch_utils import Conv1D

from pipeline.editing.patch import linear_map, weights_of
from pipeline.editors import ft_l, ft_w
from pipeline.errors import ModelError
from pipeline.measures import nll
from pipeline.models import Face, face_of
from pipeline.models.layouts import block_sites


def by_torch(
    face: Face,
    sites: tuple[str, ...],
    parts: list[list[tuple[str, str]]],
    steps: int,
    *,
    decay: float = 0.0,
    bound: float = math.inf,
    enough: float = 0.0,
) -> tuple[Face, int]:
    """Train a copy's weights on batches of edits in turn."""
    twin = face_of(copy.deepcopy(face.model), face.tokenizer)
    weights = [linear_map(twin.model, site).get_parameter("weight") for site in sites]
    start = [weight.detach().clone() for weight in weights]
    for weight in weights:
        weight.requires_grad_()
    optimizer = torch.optim.Adam(weights, lr=5e-3, weight_decay=decay)
    for step in range(steps):
        batch = twin.encode(parts[step % len(parts)])
        loss = nll(twin.logits(batch), batch).mean()
        if loss < enough:
            return twin, step
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for weight, was in zip(weights, start, strict=True):
            weight.data.clamp_(was - bound, was + bound)
    return twin, steps


def assert_moved(face: Face, twin: Face, site: str, delta: torch.Tensor) -> None:
    before, after = linear_map(face.model, site), linear_map(twin.model, site)
    moved = after.get_parameter("weight").detach() - before.get_parameter("weight")
    moved = moved.T if isinstance(before, Conv1D) else moved
    torch.testing.assert_close(delta, moved, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize(("architecture", "k"), [("gpt2", 1), ("gpt2", 2), ("bart", 4)])
def test_ft_w_is_adam_with_the_laws_decay(architecture: str, k: int, decay: bool) -> None:
    face = make_face(architecture)
    face.model.double()
    config = ft_w.Config(rate=5e-3, steps=12, rows=3, decay=decay, enough=0.8)
    requests = [case.request() for case in make_cases(face, 4)]
    edits = ft_w.Editor(config).edit(face, requests, k)
    law = math.exp(0.1559) * k**-0.870 if decay else 0.0
    for row in range(4 // k):
        pairs = pairs_for(face)[row * k : (row + 1) * k]
        sites = tuple(weights_of(edits.patch).updates)
        twin, steps = by_torch(face, sites, [pairs], 12, decay=law, enough=0.8)
        assert edits.steps[row] == steps
        assert edits.stopped_early[row] == (steps < 12)
        for site, update in weights_of(edits.patch).updates.items():
            assert_moved(face, twin, site, update.dense_ROI()[row])


def test_ft_w_takes_many_edits_in_turn() -> None:
    """Three edits in batches of two: the last batch of a pass is filled up with the first edit."""
    face = make_face("gpt2")
    face.model.double()
    config = ft_w.Config(rate=5e-3, steps=3, batch=2, enough=0.0, decay=False)
    requests = [case.request() for case in make_cases(face, 3)]
    edits = ft_w.Editor(config).edit(face, requests, 3)
    a, b, c = pairs_for(face)[:3]
    updates = weights_of(edits.patch).updates
    twin, _ = by_torch(face, tuple(updates), [[a, b], [c, a]], 6)
    assert edits.steps == (6,)
    for site, update in updates.items():
        assert_moved(face, twin, site, update.dense_ROI()[0])


def test_ft_l_keeps_every_weight_within_its_bound() -> None:
    face = make_face("gpt2")
    face.model.double()
    config = ft_l.Config(rate=5e-3, steps=8, bound=0.012, enough=0.5)
    edits = ft_l.Editor(config).edit(face, [case.request() for case in make_cases(face, 4)], 2)
    (site,) = block_sites(face.model, 0, "down")
    (update,) = weights_of(edits.patch).updates.values()
    assert update.dense_ROI().abs().max() <= 0.012 + 1e-12
    for row in range(2):
        pairs = pairs_for(face)[2 * row : 2 * row + 2]
        twin, steps = by_torch(face, (site,), [pairs], 8, bound=0.012, enough=0.5)
        assert edits.steps[row] == steps
        assert_moved(face, twin, site, update.dense_ROI()[row])


def test_the_block_is_where_the_paper_has_it() -> None:
    face = make_face("gpt2")
    sites = ft_w.Editor(ft_w.Config()).sites(face)
    assert {site.split(".")[2] for site in sites} == {"2"}
    assert len(sites) == 4
    assert ft_l.Editor(ft_l.Config()).sites(face) == ("transformer.h.0.mlp.c_proj",)
    with pytest.raises(ModelError, match="a block from 0 to 2"):
        ft_w.Editor(ft_w.Config(block=3)).sites(face)
