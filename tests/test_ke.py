"""KE's factors against its dense formula, and its reader."""

from __future__ import annotations

import pytest
import torch
from cases import make_cases
from conftest import make_face, pairs_for

from pipeline.editing import draws, metalearn
from pipeline.editing.editor import Material
from pipeline.editing.gradients import token_gradients
from pipeline.editing.patch import Factors, linear_map, weight_OI
from pipeline.editors import ke
from pipeline.measures import nll
from pipeline.models import Face
from pipeline.records import Request

SMALL = ke.Config(hidden=6, condition=5, scale=0.7)


def requests_for(face: Face) -> list[Request]:
    said = ["nothing", "Oslo", "", "the guild"]
    return [
        Request(prompt=prompt, target=target, prediction=prediction)
        for (prompt, target), prediction in zip(pairs_for(face), said, strict=True)
    ]


def test_factors_are_the_dense_formula(face: Face) -> None:
    """s σ(η) (∇W ∘ (a bᵀ) + c dᵀ), with ∇W by autograd on the weight itself."""
    face.model.double()
    learner = ke.Ke(face, SMALL, seed=0).double()
    requests = requests_for(face)
    patch = learner.patch(face, draws.encode(face, requests))
    ids = ke.condition_ids(face.tokenizer, requests)
    tolerance = 1e-4 if face.model.config.model_type == "t5" else 1e-6
    for row, request in enumerate(requests):
        condition_1C = learner.conditioner([ids[row]])
        for site in learner.sites:
            weight = linear_map(face.model, site).weight
            assert isinstance(weight, torch.Tensor)
            weight.requires_grad_(True)
            batch = face.encode([(request.prompt, request.target)])
            (gradient,) = torch.autograd.grad(nll(face.logits(batch), batch).sum(), weight)
            weight.requires_grad_(False)
            if gradient.shape != weight_OI(linear_map(face.model, site)).shape or (
                type(linear_map(face.model, site)).__name__ == "Conv1D"
            ):
                gradient = gradient.T
            out = learner.heads[site.replace(".", "/")].layers(condition_1C)[0]
            outputs, inputs = gradient.shape
            a, b, c, d, norm = out.split([outputs, inputs, outputs, inputs, 1])
            mask = torch.outer(a.softmax(0), b)
            offset = torch.outer(c.softmax(0), d)
            expected = 0.7 * torch.sigmoid(norm) * (gradient * mask + offset)
            update = patch.updates[site]
            assert isinstance(update, Factors)
            delta = update.dense_ROI()[row]
            assert (delta - expected).norm() <= tolerance * expected.norm()
            assert (gradient * mask).norm() > 0


def test_the_reader_does_not_see_padding() -> None:
    face = make_face("gpt2")
    reader = ke.Ke(face, SMALL, seed=0).double().conditioner
    ids = ke.condition_ids(face.tokenizer, requests_for(face))
    assert len({len(row) for row in ids}) > 1
    alone = torch.cat([reader([row]) for row in ids])
    torch.testing.assert_close(reader(ids), alone)
    # A bidirectional LSTM by hand: each direction's last state, over the row's own tokens.
    x_LE = reader.embedding.weight[torch.tensor(ids[0])]
    _, (last, _) = reader.lstm(x_LE[None])
    by_hand = torch.tanh(reader.linear(torch.cat([last[0], last[1]], dim=-1)))
    torch.testing.assert_close(alone[:1], by_hand)


def test_the_condition_is_what_the_model_says_should_say_and_is_asked() -> None:
    face = make_face("gpt2")
    request = Request(prompt="Where was Ada Verrin born?", target=" Oslo", prediction=" Lisbon")
    (ids,) = ke.condition_ids(face.tokenizer, [request])
    assert face.tokenizer.decode(ids) == "Lisbon >> Oslo || Where was Ada Verrin born?"


def test_embeddings_start_as_the_models_own_and_are_a_copy() -> None:
    face = make_face("bart")
    weight = ke.Ke(face, SMALL, seed=0).conditioner.embedding.weight
    own = face.model.get_input_embeddings().weight
    assert torch.equal(weight, own)
    assert weight.data_ptr() != own.data_ptr()
    assert weight.requires_grad


def test_the_start_is_drawn_from_the_seed_alone() -> None:
    face = make_face("gpt2")
    one = ke.Ke(face, SMALL, seed=1).state_dict()
    torch.manual_seed(99)
    two, three = ke.Ke(face, SMALL, seed=1).state_dict(), ke.Ke(face, SMALL, seed=2).state_dict()
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not all(torch.equal(value, three[name]) for name, value in one.items())


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_every_parameter_learns(architecture: str) -> None:
    face = make_face(architecture)
    learner = ke.Ke(face, SMALL, seed=0)
    before = {name: value.clone() for name, value in learner.named_parameters()}
    config = metalearn.Config(steps=4, batch=4, lr=1e-2, heldout=2, validate_every=4, warm_up=0)
    metalearn.train(face, learner, Material(cases=make_cases(face, 12), seed=0), config)
    for name, value in learner.named_parameters():
        assert not torch.equal(value, before[name]), f"{name} did not move"


def test_edits_can_start_as_gradient_steps() -> None:
    face = make_face("gpt2")
    edits = draws.encode(face, requests_for(face))
    learner = ke.Ke(face, ke.Config(hidden=64, condition=64, alpha=30.0), seed=0)
    found = token_gradients(face, edits.batch, learner.sites).gradients
    update = learner.patch(face, edits).updates[learner.sites[0]]
    assert isinstance(update, Factors)
    masked = Factors(update.left_RKO[:, :-1], update.right_RKI[:, :-1]).dense_ROI()  # no offset
    tokens = found[learner.sites[0]]
    expected = -30.0 * Factors(tokens.delta_RTO, tokens.u_RTI).dense_ROI()
    assert (masked - expected).norm() < 0.25 * expected.norm()


def test_the_margin_objective_climbs_and_descends() -> None:
    face = make_face("gpt2")
    learner = ke.Ke(face, ke.Config(objective="margin", margin=0.2, least_margin=0.15), seed=0)
    assert learner.multiplier is not None
    learner.multiplier.data.fill_(2.0)
    edit, loc = (torch.tensor(x, requires_grad=True) for x in (0.7, 0.5))
    drawn = draws.draw(face, make_cases(face, 1), seed=0, epoch=0)
    loss = learner.loss(edit, loc, metalearn.Config(), drawn, torch.zeros(()))
    assert loss.item() == pytest.approx(0.7 + 2.0 * (0.5 - 0.2))
    loss.backward()
    assert edit.grad == 1
    assert loc.grad == 2
    assert learner.multiplier.grad is not None
    assert learner.multiplier.grad.item() == pytest.approx(-(0.5 - 0.2))  # a descent step raises it
    learner.validated({"val_success": 0.9})
    assert learner.margin.item() == pytest.approx(0.2)
    for expected in (0.16, 0.15, 0.15):
        learner.validated({"val_success": 0.95})
        assert learner.margin.item() == pytest.approx(expected)
    learner.multiplier.data.fill_(-1.0)
    learner.loss(edit, loc, metalearn.Config(), drawn, torch.zeros(()))
    assert learner.multiplier.item() == 0


def test_the_margin_objective_trains_and_is_kept() -> None:
    face = make_face("gpt2")
    outer = metalearn.Config(
        steps=4, batch=4, lr=1e-3, lr_alpha=0.1, heldout=2, validate_every=2, warm_up=0
    )
    config = ke.Config(hidden=6, condition=5, objective="margin", outer=outer)
    editor = ke.Editor(config)
    editor.fit(face, Material(cases=make_cases(face, 12), seed=0))
    tensors = editor.tensors()
    assert tensors["multiplier"] != 1
    again = ke.Editor(config)
    again.restore(face, tensors, {})
    assert torch.equal(again.learner.margin, tensors["margin"])
