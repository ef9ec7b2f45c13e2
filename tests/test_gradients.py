"""u and δ against autograd through the weights themselves, in float64."""

from __future__ import annotations

import torch
from conftest import make_face, pairs_for
from transformers.pytorch_utils import Conv1D

from pipeline.editing.gradients import token_gradients
from pipeline.editing.patch import Patch, applied, linear_map
from pipeline.editing.updates import Factors
from pipeline.measures import nll
from pipeline.models import Face


def test_factors_are_autograds_gradient(face: Face) -> None:
    face.model.double()
    sites = face.sites()
    found = token_gradients(face, face.encode(pairs_for(face)), sites)
    modules = [linear_map(face.model, site) for site in sites]
    # These compute attention weights (Llama its norms too) in float32 whatever the model's type.
    single = face.model.config.model_type in ("gpt_neo", "opt", "llama")
    atol = 1e-6 if single else 1e-12
    for row, pair in enumerate(pairs_for(face)):
        batch = face.encode([pair])
        face.model.requires_grad_(True)
        loss = nll(face.logits(batch), batch).sum()
        weights = [module.get_parameter("weight") for module in modules]
        expected = torch.autograd.grad(loss, weights)
        face.model.requires_grad_(False)
        for site, module, gradient in zip(sites, modules, expected, strict=True):
            tokens = found.gradients[site]
            ours_OI = tokens.delta_RTO[row].T @ tokens.u_RTI[row]
            theirs_OI = gradient.T if isinstance(module, Conv1D) else gradient
            torch.testing.assert_close(ours_OI, theirs_OI, atol=atol, rtol=1e-8)


def test_padding_carries_no_gradient() -> None:
    face = make_face("gpt2")
    batch = face.encode(pairs_for(face))
    found = token_gradients(face, batch, face.sites())
    padding_BT = batch.inputs["attention_mask"] == 0
    assert padding_BT.any()
    for tokens in found.gradients.values():
        assert tokens.delta_RTO[padding_BT].abs().max() == 0


def test_a_small_step_lowers_the_edit_loss(face: Face) -> None:
    batch = face.encode(pairs_for(face))
    found = token_gradients(face, batch, face.sites())
    step = {
        site: Factors(-1e-2 * tokens.delta_RTO, tokens.u_RTI)
        for site, tokens in found.gradients.items()
    }
    with applied(face.model, Patch(step)), torch.no_grad():
        after_R = nll(face.logits(batch), batch)
    assert (after_R < found.loss_R).all()


def test_second_derivatives_flow_when_asked() -> None:
    face = make_face("gpt2")
    site = face.sites()[0]
    module = linear_map(face.model, site)
    weight = module.get_parameter("weight").requires_grad_()
    found = token_gradients(face, face.encode(pairs_for(face)), face.sites(), create_graph=True)
    total = sum(tokens.delta_RTO.square().sum() for tokens in found.gradients.values())
    (gradient,) = torch.autograd.grad(total, weight)
    assert gradient.abs().sum() > 0
