"""What every editor must keep to, on every architecture. A new editor is tested by existing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import make_cases
from conftest import SENTENCES, in_float64, make_face

from pipeline import editors
from pipeline.editing import editor as editors_base
from pipeline.editing import metalearn, moments, summing
from pipeline.editing.editor import Editor, Material
from pipeline.editing.memory import Memory
from pipeline.editing.patch import Intervention, applied, weights_of
from pipeline.errors import EditorError, SettingsError
from pipeline.measures import exact, nll
from pipeline.models import Face
from pipeline.records import Case

SMALL: dict[str, dict[str, Any]] = {
    "enn": {
        "alpha": 1e-3,
        "outer": metalearn.Config(
            steps=4, batch=2, lr=1e-4, lr_alpha=1e-4, heldout=1, validate_every=2, warm_up=0
        ),
    },
    "ft": {"rates": (1e-4, 1e-2), "tries": 4, "steps": 30},
    "ft_l": {"rate": 1e-3, "bound": 1e-2, "steps": 10},
    "ft_w": {"rate": 1e-3, "steps": 10, "decay": False},
    "ft_kl": {"rates": (1e-4, 1e-2), "tries": 4, "steps": 30, "c_edit": 1.0},
    "ke": {
        "hidden": 8,
        "condition": 8,
        "alpha": 0.1,
        "outer": metalearn.Config(
            steps=4, batch=2, lr=1e-4, heldout=1, validate_every=2, warm_up=0
        ),
    },
    "memit": {"layers": (1,), "weight": 1e-6, "contexts": "none", "kl": 0.0, "lr": 1.0},
    "rome": {"layer": 1, "contexts": "none", "kl": 0.0, "lr": 0.5},
    "mend": {
        "rank": 4,
        "alpha": 1e-2,
        "outer": metalearn.Config(
            steps=4, batch=2, lr=1e-3, lr_alpha=1e-3, heldout=1, validate_every=2
        ),
    },
}
CONFORM = ("gpt2", "llama", "opt", "t5", "bart", "bert")


def build(name: str, face: Face) -> Editor:
    module = editors.load(name)
    built: Editor = module.Editor(module.Config(**SMALL.get(name, {})))
    if "moments" in built.needs and built.applies_to(face) is None:
        built.take(summing.take(face, SENTENCES * 2, moments.Config(), 0))
    return built


@pytest.fixture(params=CONFORM, scope="module")
def subject(request: pytest.FixtureRequest) -> Face:
    return make_face(request.param)


@pytest.fixture(params=editors.names(), scope="module")
def fitted(request: pytest.FixtureRequest, subject: Face) -> Editor:
    """An editor fitted on the tiny model, or a skip with the editor's own reason."""
    torch.set_num_threads(1)
    editor = build(request.param, subject)
    if reason := editor.applies_to(subject):
        assert len(reason) > 10
        pytest.skip(reason)
    before = weights(subject)
    editor.fit(subject, Material(cases=make_cases(subject), seed=0))
    assert_same(before, weights(subject))
    return editor


@pytest.fixture
def edited(fitted: Editor, subject: Face) -> Face:
    """The model that edits are made on; for most editors it is the subject itself."""
    return fitted.adapt(subject)


def weights(face: Face) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in face.model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def deltas(edits: Intervention) -> dict[str, torch.Tensor]:
    """An edit's numbers, row by row."""
    if isinstance(edits, Memory):
        # Rows of unequal length fill up on the right with -1.
        tokens = torch.nn.functional.pad(edits.token_RKL, (0, 64), value=-1)[..., :64]
        return {"key": edits.key_RKD, "token": tokens}
    return {site: update.dense_ROI() for site, update in weights_of(edits).updates.items()}


def test_editing_leaves_the_model_bit_for_bit(fitted: Editor, subject: Face, edited: Face) -> None:
    requests = [case.request() for case in make_cases(subject, 3)]
    batch = edited.encode([(r.prompt, r.target) for r in requests])
    before, own, logits = weights(subject), weights(edited), edited.logits(batch)
    patch = fitted.edit(edited, requests).patch
    assert_same(before, weights(subject))
    assert_same(own, weights(edited))
    with applied(edited.model, patch):
        assert not torch.equal(edited.logits(batch), logits)
    assert torch.equal(edited.logits(batch), logits)
    assert not any(m._forward_hooks for m in edited.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in edited.model.parameters())


def test_adapting_twice_changes_nothing(fitted: Editor, edited: Face) -> None:
    assert fitted.adapt(edited).model is edited.model


def test_the_edit_loss_falls(fitted: Editor, edited: Face) -> None:
    """Of a memory the target is the argmax: its one-hot logits of size 1 are never confident."""
    requests = [case.request() for case in make_cases(edited, 4)]
    batch = edited.encode([(r.prompt, r.target) for r in requests])
    before = nll(edited.logits(batch), batch)
    patch = fitted.edit(edited, requests).patch
    with applied(edited.model, patch):
        after, right = nll(edited.logits(batch), batch), exact(edited.logits(batch), batch)
    if isinstance(patch, Memory):
        assert right.all()
        return
    assert (after <= before).all()
    assert after.sum() < before.sum()


def test_rows_equal_singles(fitted: Editor, edited: Face) -> None:
    """In float64: FT's RMSprop blows up the last bits of gradients that are almost zero."""
    requests = [case.request() for case in make_cases(edited, 4)]
    with in_float64(edited):
        together = fitted.edit(edited, requests)
        alone = [fitted.edit(edited, [request]) for request in requests]
    assert together.patch.rows == len(together.steps) == len(together.stopped_early) == 4
    for row, single in enumerate(alone):
        assert single.steps == together.steps[row : row + 1]
        for site, delta in deltas(single.patch).items():
            torch.testing.assert_close(
                delta[0], deltas(together.patch)[site][row], atol=1e-5, rtol=1e-4
            )


def test_the_same_seed_gives_the_same_patch(fitted: Editor, subject: Face) -> None:
    name = type(fitted).__module__.rsplit(".", 1)[-1]
    again = build(name, subject)
    again.fit(subject, Material(cases=make_cases(subject), seed=0))
    requests = [case.request() for case in make_cases(subject, 2)]
    one = fitted.edit(fitted.adapt(subject), requests)
    two = again.edit(again.adapt(subject), requests)
    for site, delta in deltas(one.patch).items():
        assert torch.equal(delta, deltas(two.patch)[site])


def test_what_was_learned_saves_and_loads(fitted: Editor, subject: Face, tmp_path: Path) -> None:
    name = type(fitted).__module__.rsplit(".", 1)[-1]
    editors_base.save(fitted, tmp_path, "hash of the base")
    loaded = build(name, subject)
    editors_base.restore(loaded, subject, tmp_path, "hash of the base")
    requests = [case.request() for case in make_cases(subject, 2)]
    one = fitted.edit(fitted.adapt(subject), requests)
    two = loaded.edit(loaded.adapt(subject), requests)
    for site, delta in deltas(one.patch).items():
        assert torch.equal(delta, deltas(two.patch)[site])
    with pytest.raises(EditorError, match="Fit it again"):
        editors_base.restore(build(name, subject), subject, tmp_path, "another model")


class Watched(Sequence[Case]):
    """Cases that know whether anybody looked."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases, self.read = cases, False

    def __getitem__(self, place: Any) -> Any:
        self.read = True
        return self.cases[place]

    def __len__(self) -> int:
        self.read = True
        return len(self.cases)


def test_needs_are_honest(fitted: Editor, subject: Face) -> None:
    cases = Watched(make_cases(subject))
    again = build(type(fitted).__module__.rsplit(".", 1)[-1], subject)
    again.fit(subject, Material(cases=cases, seed=0))
    assert cases.read == ("cases" in fitted.needs)


def test_unknown_editor_is_refused_with_near_misses() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'mend'"):
        editors.load("mendd")
