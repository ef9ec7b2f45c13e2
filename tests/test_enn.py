"""ENN's outer gradient against plain autograd through updated weights, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases import make_cases
from conftest import make_face
from torch import Tensor
from torch.func import functional_call

from pipeline import protocols, scoring
from pipeline.editing import draws, metalearn
from pipeline.editing import editor as editors_base
from pipeline.editing.editor import Material
from pipeline.editors import enn
from pipeline.measures import kl, nll
from pipeline.models import Batch, Face

OUTER = metalearn.Config(
    steps=4, batch=2, lr=1e-3, lr_alpha=1e-3, heldout=2, validate_every=2, warm_up=0
)


def tuned(face: Face) -> enn.Enn:
    """A copy that has moved away from the original, with unequal edit rates."""
    learner = enn.Enn(face, enn.Config(alpha=3e-2))
    draws = torch.Generator().manual_seed(1)
    for parameter in learner.parameters():
        noise = torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype)
        parameter.data += 1e-2 * noise
    return learner


def plain(
    face: Face, batch: Batch, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """The face's own logits, but of a model with these weights in place of its own."""

    class Stand:
        """Calls the model with other weights; everything else is the model's."""

        def __call__(self, **inputs: object) -> object:
            return functional_call(model, weights, kwargs=inputs)

        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

    model = face.model
    with monkeypatch.context() as patched:
        patched.setattr(face, "model", Stand())
        return face.logits(batch)


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "t5", "bart", "bert"])
def test_the_outer_gradient_is_plain_autograds(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = make_face(architecture)
    face.model.double()
    learner = tuned(face)
    learner.double()
    drawn = draws.draw(draws.Reader(face), make_cases(face, 3), seed=0, epoch=0)
    config = metalearn.Config(lr=0.0, lr_alpha=0.0, c_edit=0.7, clip=1e9, batch=3)
    optimizer = torch.optim.SGD(learner.groups(config), lr=0.0)
    metalearn._learn(face, learner, optimizer, drawn, config)
    found = {name: p.grad for name, p in learner.named_parameters()}

    now = learner.adapt(face)
    own = dict(learner.model.named_parameters())
    sites = [f"{site}.weight" for site in learner.sites]
    total = torch.zeros((), dtype=torch.float64)
    batches = zip(
        *(rows(now, drawn, kind) for kind in ("edits", "rephrases", "bystanders")), strict=True
    )
    for edit, rephrase, bystander in batches:
        loss = nll(plain(now, edit, own, monkeypatch), edit).sum()
        steps = torch.autograd.grad(loss, [own[name] for name in sites], create_graph=True)
        moved = dict(own)
        for name, alpha, step in zip(sites, learner.alphas, steps, strict=True):
            moved[name] = own[name] - alpha * step
        before = plain(now, bystander, own, monkeypatch)
        after = plain(now, bystander, moved, monkeypatch)
        total = total + 0.7 * nll(plain(now, rephrase, moved, monkeypatch), rephrase).sum()
        total = total + kl(before.detach(), after, bystander).sum()
        total = total + kl(face.logits(bystander), before, bystander).sum()
    names = [name for name, _ in learner.named_parameters()]
    expected = torch.autograd.grad(total / 3, list(learner.parameters()), allow_unused=True)
    # Inside, T5's layer norms and the softmaxes of some attentions compute in float32.
    tolerance = 1e-4 if architecture == "t5" else 1e-6
    for name, value in zip(names, expected, strict=True):
        ours = found[name]
        if value is None:
            assert ours is None, name
        else:
            assert ours is not None, name
            assert (ours - value).norm() <= tolerance * value.norm() + 1e-7, name
    assert expected[names.index("alphas")].abs().min() > 0


def rows(face: Face, drawn: draws.Draw, kind: str) -> list[Batch]:
    """The rows of a part of a draw, each as a batch of its own: drawn again by the same seed."""
    cases = make_cases(face, 3)
    alone = [draws.draw(draws.Reader(face), [case], seed=0, epoch=0) for case in cases]
    parts = [getattr(one, kind) for one in alone]
    assert len(parts) == drawn.edits.batch.rows
    return [part.batch if kind == "edits" else part for part in parts]


def test_the_original_stays_and_the_copy_learns() -> None:
    face = make_face("gpt2")
    before = {name: value.clone() for name, value in face.model.state_dict().items()}
    editor = enn.Editor(enn.Config(alpha=1e-3, outer=OUTER))
    editor.fit(face, Material(cases=make_cases(face, 12), seed=0))
    trained = editor.adapt(face)
    assert trained.model is not face.model
    for name, value in face.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    moved = {n: not torch.equal(v, before[n]) for n, v in trained.model.named_parameters()}
    assert all(moved.values()), [name for name, changed in moved.items() if not changed]
    with pytest.raises(AssertionError, match="adapt"):
        editor.edit(face, [make_cases(face, 1)[0].request()])


def test_interrupted_training_resumes_to_the_same_bits_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 12)
    whole = enn.Enn(face, enn.Config(alpha=1e-3))
    metalearn.train(face, whole, Material(cases=cases, seed=3), OUTER)
    learn, calls = metalearn._learn, []

    def cut(*arguments: object) -> tuple[float, float]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return learn(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(metalearn, "_learn", cut)
    kept = Material(cases=cases, seed=3, checkpoints=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        metalearn.train(face, enn.Enn(face, enn.Config(alpha=1e-3)), kept, OUTER)
    resumed = enn.Enn(face, enn.Config(alpha=1e-3))
    metalearn.train(face, resumed, kept, OUTER)
    assert len(calls) == 4 + 2  # steps 3 and 4 after the checkpoint at 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bart"])
def test_tied_weights_are_saved_once_and_come_back_tied(architecture: str, tmp_path: Path) -> None:
    face = make_face(architecture)
    editor = enn.Editor(enn.Config())
    editor._learner = tuned(face)
    assert len(editor.tensors()) < len(editor.learner.state_dict())
    editors_base.save(editor, tmp_path, "base")
    loaded = enn.Editor(enn.Config())
    editors_base.restore(loaded, face, tmp_path, "base")
    for name, value in editor.learner.state_dict().items():
        assert torch.equal(value, loaded.learner.state_dict()[name]), name
    batch = face.encode([(case.prompt, case.target_new) for case in make_cases(face, 2)])
    assert torch.equal(editor.adapt(face).logits(batch), loaded.adapt(face).logits(batch))


def test_scores_hold_the_trained_model_and_the_original() -> None:
    face = make_face("gpt2")
    editor = enn.Editor(enn.Config(alpha=3e-2))
    editor._learner = tuned(face)
    cases = make_cases(face, 3)
    config = scoring.Config(cases=2, generate=False)
    outcomes, _ = protocols.single(face, editor, cases, config)
    for row in outcomes.to_dict("records"):
        pair = face.encode([(row["prompt"], row["target"])])
        own = "nll_new" if row["probe"] in ("edit", "rephrase") else "nll_true"
        for prefix, model in (("orig_", face), ("pre_", editor.adapt(face))):
            expected = nll(model.logits(pair), pair).item()
            assert row[prefix + own] == pytest.approx(expected, abs=1e-5)
        assert row["orig_kl"] > 0
    assert (outcomes["orig_nll_true"] - outcomes["pre_nll_true"]).abs().min() > 0
    plain_rows = scoring.score(
        face,
        cases,
        editor.edit(editor.adapt(face), [case.request() for case in cases]).patch,
        config,
    )
    assert not any(name.startswith("orig_") for row in plain_rows for name in row)
