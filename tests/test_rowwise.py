"""A weight for each row is W + ΔW of each row, for every layout of weight, bias and tokens."""

from __future__ import annotations

import pytest
import torch
from cases import make_cases
from conftest import make_face, pairs_for

from pipeline.editing.gradients import token_gradients
from pipeline.editing.patch import Patch, applied, linear_map, weight_OI
from pipeline.editing.rowwise import weighing
from pipeline.editing.updates import Dense
from pipeline.editors import ft
from pipeline.errors import ModelError
from pipeline.measures import exact


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt", "bart", "bert"])
@pytest.mark.parametrize("inputs", [1, 2])  # input rows for each weight
def test_weights_answer_as_their_updates_do(architecture: str, inputs: int) -> None:
    face = make_face(architecture)
    face.model.double()
    draws = torch.Generator().manual_seed(0)
    batch = face.encode(pairs_for(face)[: 2 * inputs])
    deltas = {
        site: 0.1 * torch.randn(2, *weight_OI(linear_map(face.model, site)).shape, generator=draws)
        for site in face.sites()
    }
    patch = Patch({site: Dense(delta.double()) for site, delta in deltas.items()})
    rows_B = torch.arange(2).repeat_interleave(inputs)
    weights = {
        site: weight_OI(linear_map(face.model, site)) + delta for site, delta in deltas.items()
    }
    before = face.logits(batch)
    with applied(face.model, patch, rows_B):
        expected = token_gradients(face, batch, face.sites())
    with weighing(face.model, weights):
        found = token_gradients(face, batch, face.sites())
    torch.testing.assert_close(found.loss_R, expected.loss_R, rtol=1e-9, atol=1e-12)
    for site, gradient in expected.gradients.items():
        torch.testing.assert_close(found.gradients[site].u_RTI, gradient.u_RTI)
        torch.testing.assert_close(found.gradients[site].delta_RTO, gradient.delta_RTO)
    assert torch.equal(face.logits(batch), before), "the model is as it was"


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_in_half_precision_what_stops_early_is_right_when_applied(architecture: str) -> None:
    face = make_face(architecture)
    face.model.to(torch.bfloat16)
    cases = make_cases(face, 12)
    edits = ft.Editor(ft.Config(rate=3e-4)).edit(face, [case.request() for case in cases])
    assert any(edits.stopped_early)
    batch = face.encode([(case.prompt, case.target_new) for case in cases])
    with applied(face.model, edits.patch):
        logits_NV = face.logits(batch)
    assert logits_NV.dtype == torch.bfloat16
    assert tuple(exact(logits_NV, batch).bool().tolist()) == edits.stopped_early


def test_rows_that_do_not_fit_are_refused() -> None:
    face = make_face("gpt2")
    site = face.sites()[0]
    weights = {site: weight_OI(linear_map(face.model, site)).repeat(2, 1, 1)}
    with weighing(face.model, weights), pytest.raises(ModelError, match=r"multiple of 2 rows"):
        face.logits(face.encode(pairs_for(face)[:3]))
