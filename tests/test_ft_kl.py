"""FT+KL: its step against autograd of the written-out loss, and the examples it draws."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from cases import make_cases
from conftest import make_face, pairs_for
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from pipeline.editing.descent import group
from pipeline.editing.editor import Material
from pipeline.editing.patch import linear_map
from pipeline.editors import ft_kl
from pipeline.models import Face, face_of

RATE = 1e-4


def fitted(face: Face, **settings: object) -> ft_kl.Editor:
    """With a rate given, fitting only keeps the examples."""
    editor = ft_kl.Editor(ft_kl.Config(rate=RATE, **settings))  # type: ignore[arg-type]
    editor.fit(face, Material(cases=make_cases(face), seed=0))
    return editor


def log_probabilities(face: Face, pair: tuple[str, str]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = face.encode([pair])
    return face.logits(batch).log_softmax(-1), batch.label_N


@pytest.mark.parametrize(
    ("architecture", "k"), [("gpt2", 1), ("gpt2", 2), ("bart", 1), ("bert", 1)]
)
def test_steps_are_rmsprop_on_the_written_out_loss(architecture: str, k: int) -> None:
    """Two steps: at the first, the KL of an unedited model has no gradient."""
    face = make_face(architecture)
    face.model.double()
    editor = fitted(face, steps=2, c_edit=0.3, rows=2)
    requests = [case.request() for case in make_cases(face, 4)]
    rows = group(face, requests, k)
    edits = editor.edit(face, requests, k)
    for number, row in enumerate(rows):
        twin = face_of(copy.deepcopy(face.model), face.tokenizer)
        weights = [linear_map(twin.model, s).get_parameter("weight") for s in twin.sites()]
        for weight in weights:
            weight.requires_grad_()
        optimizer = torch.optim.RMSprop(weights, lr=RATE)
        for step in range(edits.steps[number]):
            parts = []
            for request in row.requests:
                found, labels = log_probabilities(twin, (request.prompt, request.target))
                parts.append(F.nll_loss(found, labels))
            after, _ = log_probabilities(twin, editor.example(row, step))
            before, _ = log_probabilities(face, editor.example(row, step))
            loss_loc = (before.exp() * (before - after)).sum(-1).mean()
            optimizer.zero_grad()
            (0.3 * torch.stack(parts).mean() + loss_loc).backward()
            optimizer.step()
        for site, weight in zip(twin.sites(), weights, strict=True):
            original = linear_map(face.model, site)
            moved = weight.detach() - original.get_parameter("weight")
            moved = moved.T if isinstance(original, Conv1D) else moved
            found = edits.patch.updates[site].dense_ROI()[number]
            torch.testing.assert_close(found, moved, atol=1e-7, rtol=1e-5)
    assert 2 in edits.steps


def test_examples_follow_from_seed_prompt_and_step() -> None:
    face = make_face("gpt2")
    editor, again = fitted(face), fitted(face)
    rows = group(face, [case.request() for case in make_cases(face, 2)], 1)
    drawn = [[editor.example(row, step) for step in range(20)] for row in rows]
    assert drawn == [[again.example(row, step) for step in range(20)] for row in rows]
    assert drawn[0] != drawn[1]
    assert len(set(drawn[0])) > 1  # fresh ones
    again.seed = 1
    assert drawn[0] != [again.example(rows[0], step) for step in range(20)]


def test_the_pool_is_of_training_bystanders_and_survives_json() -> None:
    face = make_face("gpt2")
    editor = fitted(face, pool=3)
    assert len(editor.pool) == 3
    assert set(editor.pool) <= set(pairs_for(face))
    again = ft_kl.Editor(ft_kl.Config())
    again.restore(face, {}, json.loads(json.dumps(editor.notes())))
    assert (again.pool, again.seed, again.rate) == (editor.pool, 0, RATE)


def test_what_was_said_of_examples_is_kept_as_far_as_it_fits_and_for_one_run() -> None:
    face = make_face("gpt2")
    requests = [case.request() for case in make_cases(face, 4)]
    asked = []
    logits = face.logits
    face.logits = lambda batch: asked.append(batch.rows) or logits(batch)  # type: ignore[method-assign, func-returns-value, assignment]
    patches, passes = [], []
    for most in (2**28, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ft_kl, "_KEPT", most)
            editor = fitted(face, steps=6, pool=2)
            asked.clear()
            patches.append(editor.edit(face, requests).patch)
            passes.append(sum(asked))
    assert passes[0] < passes[1]
    for site, update in patches[0].updates.items():
        other = patches[1].updates[site].dense_ROI()
        torch.testing.assert_close(update.dense_ROI(), other, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        face.model.get_output_embeddings().weight.mul_(1.5)  # another model, the same editor
    fresh = fitted(face, steps=6, pool=2).edit(face, requests)
    again = editor.edit(face, requests)
    for site, update in fresh.patch.updates.items():
        assert torch.equal(update.dense_ROI(), again.patch.updates[site].dense_ROI())
