"""Edits made in turn: each on the model as those before it left it, judged when all are made."""

from __future__ import annotations

import pytest
import torch
from cases import make_cases
from conftest import make_face

from pipeline import protocols, scoring
from pipeline.editing import draws
from pipeline.editing.editor import Editor, Edits
from pipeline.editing.patch import Patch, applied, join
from pipeline.editors import cache, mend
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.records import Request
from pipeline.stack import Stack, together

CONFIG = scoring.Config(cases=4, rows=50)


class Steps(Editor):
    """One step of gradient descent on each edit; remembers what it was asked."""

    def __init__(self, face: Face) -> None:
        self.learner = mend.Mend(face, mend.Config(norm=False, alpha=0.3), 0).eval()
        self.asked: list[Request] = []

    def edit(self, face: Face, requests: list[Request], k: int = 1) -> Edits:  # type: ignore[override]
        self.asked += requests
        patch = self.learner.patch(face, draws.encode(face, requests)).detach()
        rows = len(requests) // k
        return Edits(join(patch, k), (1,) * rows, (False,) * rows)


@pytest.mark.parametrize("name", ["gpt2", "bart", "bert"])
def test_each_edit_is_made_on_what_those_before_it_left(name: str) -> None:
    face = make_face(name)
    cases, editor = make_cases(face, 5), Steps(face)
    rows, timings = protocols.batched(face, editor, cases, CONFIG, k=2, in_turn=True)
    by_hand = []
    for group in protocols._groups(cases, 2, 0, None):
        first = editor.edit(face, [group[0].request()]).patch
        with applied(face.model, first):
            second = editor.edit(face, [group[1].request()]).patch
        assert isinstance(first, Patch)
        assert isinstance(second, Patch)
        both = Patch({s: together([first.updates[s], second.updates[s]]) for s in first.updates})
        for one in protocols.groups.judged(group)[0]:
            by_hand += scoring.score(face, [one], both, CONFIG, [0])
    assert rows["case_id"].tolist() == [row["case_id"] for row in by_hand]
    for column in ("nll_new", "kl", "tf_exact"):
        expected = pytest.approx([row[column] for row in by_hand], abs=1e-5, nan_ok=True)
        assert rows[column].tolist() == expected
    turns = rows.drop_duplicates("case_id")["step"].tolist()
    assert turns == [1, 2, 1, 2]
    assert set(rows["protocol"]) == {"sequential"}
    assert timings["n_groups"].tolist() == [1, 1]
    assert timings["steps_mean"].tolist() == [2, 2]


def test_the_prediction_is_what_the_model_says_by_then() -> None:
    face = make_face("gpt2")
    cases, editor = make_cases(face, 2), Steps(face)
    protocols.batched(face, editor, cases, CONFIG, k=2, in_turn=True)
    first, second = editor.asked
    lengths = [len(face.tokenise([(r.prompt, r.target)])[0].labels) for r in editor.asked]
    assert first.prediction == face.write([first.prompt], lengths[:1])[0].opening
    with applied(face.model, Steps(face).edit(face, [first]).patch):
        assert second.prediction == face.write([second.prompt], lengths[1:])[0].opening


def test_one_edit_in_turn_is_one_edit() -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 3)
    alone, _ = protocols.single(face, Steps(face), cases, CONFIG)
    turn, _ = protocols.batched(face, Steps(face), cases, CONFIG, k=1, in_turn=True)
    assert alone.equals(turn)


def test_memories_of_a_sequence_all_answer() -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 2)
    editor = cache.Editor(cache.Config(epsilon=1e-3))
    rows, _ = protocols.batched(face, editor, cases, CONFIG, k=2, in_turn=True)
    assert (rows.loc[rows["probe"] == "edit", "tf_exact"] == 1).all()


def test_entries_of_unequal_length_are_one_memory() -> None:
    face = make_face("gpt2")
    stack, editor = Stack(), cache.Editor(cache.Config(epsilon=1e-3))
    pairs = (("Tom Asker works for", " by"), ("The harbour", " was built by the old"))
    for number, (prompt, target) in enumerate(pairs):
        request = Request(prompt=prompt, target=target)
        stack.put(number, editor.edit(face, [request]).patch)
    memory = stack.whole()
    assert memory.rows == 1
    for prompt, target in pairs:
        batch = face.encode([(prompt, target)])
        with applied(face.model, memory), torch.no_grad():
            assert torch.equal(face.logits(batch).argmax(-1), batch.label_N)


def test_too_few_cases_for_one_sequence_are_refused() -> None:
    face = make_face("gpt2")
    with pytest.raises(EditorError, match="at least 4 cases"):
        protocols.batched(face, Steps(face), make_cases(face, 3), CONFIG, k=4, in_turn=True)
