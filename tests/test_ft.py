"""FT against torch's own RMSprop on the weights, and its choice of a rate."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import make_cases
from conftest import make_face, pairs_for
from transformers.pytorch_utils import Conv1D

from pipeline.editing.editor import Material
from pipeline.editing.patch import linear_map, weights_of
from pipeline.editing.rules import Chunk, RMSprop
from pipeline.editors import ft
from pipeline.measures import exact, nll
from pipeline.models import Batch, Face, face_of
from pipeline.models.layouts import blocks
from pipeline.models.lower import Lower


def by_torch(face: Face, pairs: list[tuple[str, str]], rate: float, limit: int) -> tuple[Face, int]:
    """Fine-tune a copy's weights on the mean loss of some edits, the straightforward way."""
    twin = face_of(copy.deepcopy(face.model), face.tokenizer)
    weights = [linear_map(twin.model, s).get_parameter("weight") for s in twin.sites()]
    for weight in weights:
        weight.requires_grad_()
    optimizer = torch.optim.RMSprop(weights, lr=rate)
    batch = twin.encode(pairs)
    for step in range(limit + 1):
        logits = twin.logits(batch)
        if exact(logits, batch).all() or step == limit:
            return twin, step
        optimizer.zero_grad()
        nll(logits, batch).mean().backward()
        optimizer.step()
    raise AssertionError


@pytest.mark.parametrize(
    ("architecture", "limit", "k", "rows"),
    [("gpt2", 12, 1, 2), ("bart", 60, 1, 4), ("bert", 12, 1, 3), ("gpt2", 40, 2, 2)],
)
def test_every_row_is_rmsprop_on_its_own_weights(
    architecture: str, limit: int, k: int, rows: int
) -> None:
    """Rows leave at different times, and with few slots others take their places."""
    face = make_face(architecture)
    face.model.double()
    editor = ft.Editor(ft.Config(rate=3e-3, steps=limit, rows=rows))
    edits = editor.edit(face, [case.request() for case in make_cases(face, 4)], k)
    assert edits.patch.rows == 4 // k
    assert len(set(edits.steps)) > 1
    for row in range(4 // k):
        pairs = pairs_for(face)[row * k : (row + 1) * k]
        twin, steps = by_torch(face, pairs, 3e-3, limit)
        assert edits.steps[row] == steps
        assert edits.stopped_early[row] == bool(exact(*_last(twin, pairs)).all())
        for site, update in edits.patch.updates.items():
            before, after = linear_map(face.model, site), linear_map(twin.model, site)
            moved = after.get_parameter("weight").detach() - before.get_parameter("weight")
            moved = moved.T if isinstance(before, Conv1D) else moved
            torch.testing.assert_close(update.dense_ROI()[row], moved, atol=1e-7, rtol=1e-5)


def test_the_rule_is_torchs() -> None:
    draws = torch.Generator().manual_seed(0)
    weight = torch.zeros(1, 3, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.RMSprop([weight], lr=1e-2)
    ours, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(5):
        gradient = torch.randn(1, 3, 4, generator=draws, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        chunk = Chunk(ours.data, weight[0], gradient, [square.data], [step], [True])
        RMSprop().move(chunk, 1e-2)
        torch.testing.assert_close(ours.data, weight.data, rtol=1e-12, atol=1e-15)


def _last(twin: Face, pairs: list[tuple[str, str]]) -> tuple[torch.Tensor, Batch]:
    batch = twin.encode(pairs)
    return twin.logits(batch), batch


def test_the_smallest_rate_that_reaches_enough_is_chosen() -> None:
    face = make_face("gpt2")
    rates = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    editor = ft.Editor(ft.Config(rates=rates, tries=4, steps=20, reach=1.0))
    editor.fit(face, Material(cases=make_cases(face, 4), seed=0))
    requests = [case.request() for case in make_cases(face, 4)]
    shares = []
    for rate in rates:
        stopped = ft.Editor(ft.Config(rate=rate, steps=20)).edit(face, requests).stopped_early
        shares.append(sum(stopped) / 4)
    assert editor.rate == next(
        rate for rate, share in zip(rates, shares, strict=True) if share == 1
    )
    notes = editor.notes()
    assert notes["share_reached_by_rate"][f"{editor.rate:g}"] == 1.0
    assert notes["training_cases"] == 4
    again = ft.Editor(ft.Config())
    again.restore(face, {}, notes)
    assert again.notes() == notes


def test_a_given_rate_is_all_there_is_to_note() -> None:
    face = make_face("gpt2")
    editor = ft.Editor(ft.Config(rate=1e-3))
    assert editor.fit(face, Material(cases=make_cases(face, 4), seed=0)) == []
    assert editor.notes() == {"rate": 1e-3}


def test_without_enough_reach_the_furthest_rate_is_taken_and_shown() -> None:
    face = make_face("gpt2")
    editor = ft.Editor(ft.Config(rates=(1e-9, 1e-8), tries=4, steps=2))
    editor.fit(face, Material(cases=make_cases(face, 4), seed=0))
    assert editor.rate in (1e-9, 1e-8)
    assert max(editor.notes()["share_reached_by_rate"].values()) < 0.95


def test_batches_of_rows_change_nothing() -> None:
    face = make_face("bart")
    requests = [case.request() for case in make_cases(face, 5)]
    one = ft.Editor(ft.Config(rate=1e-3, steps=5, rows=2)).edit(face, requests)
    two = ft.Editor(ft.Config(rate=1e-3, steps=5, rows=5)).edit(face, requests)
    assert one.steps == two.steps
    for site, update in one.patch.updates.items():
        torch.testing.assert_close(
            update.dense_ROI(), two.patch.updates[site].dense_ROI(), atol=1e-4, rtol=1e-2
        )


@pytest.mark.parametrize("architecture", ["gpt2", "bart", "opt"])
def test_blocks_below_the_edited_ones_run_once(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as the same rows are edited; it changes no update."""
    face = make_face(architecture)
    requests = [case.request() for case in make_cases(face, 3)]
    below = blocks(face.model)[0] if face.kind == "causal" else "model.encoder.layers.0"
    inside = next(iter(face.model.get_submodule(below).children()))
    runs: list[int] = []
    inside.register_forward_hook(lambda *_: runs.append(1))
    editor = ft.Editor(ft.Config(rate=1e-4, steps=5, blocks=1))
    (steps,) = editor.edit(face, requests[:1]).steps
    assert steps == 5
    assert len(runs) == 1
    shared = editor.edit(face, requests)
    monkeypatch.setattr(Lower, "shared", lambda self, _: self.kept())
    alone = editor.edit(face, requests)
    assert shared.steps == alone.steps
    for site, update in weights_of(shared.patch).updates.items():
        assert torch.equal(update.dense_ROI(), weights_of(alone.patch).updates[site].dense_ROI())
