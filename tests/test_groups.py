"""Edits made together: what is grouped, which bystanders they spoil, what is scored under what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cases import make_cases
from conftest import make_face

from pipeline import protocols, scoring
from pipeline.editing import draws, groups, metalearn
from pipeline.editing.editor import Editor, Edits, Material
from pipeline.editing.patch import join
from pipeline.editors import mend
from pipeline.errors import EditorError
from pipeline.models import Face
from pipeline.questions import questions
from pipeline.records import Case, Probe, Request


def case(name: str, **changes: object) -> Case:
    usual = Case(
        id=name,
        prompt=f"Where was {name} born?",
        target_new="Oslo",
        subject=name,
        rephrases=(f"In which city was {name} born?",),
        neighbours=(Probe("Where was Tom Asker born?", "Bergen"),),
        hard_neighbours=(Probe(f"Where does {name} work?", "Lisbon"),),
        unrelated=(Probe("Who wrote Ada?", "Tom"), Probe("Where was Ada born?", "Rome")),
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_groups_are_consecutive_and_whole() -> None:
    cases = [case(str(number)) for number in range(7)]
    assert [[c.id for c in group] for group in groups.whole(cases, 3)] == [
        ["0", "1", "2"],
        ["3", "4", "5"],
    ]
    with pytest.raises(EditorError, match=r"at least 8 cases.*found 7.*Lower k"):
        groups.whole(cases, 8)
    assert [len(part) for part in groups.chunks(cases, 5, 2)] == [4, 2]
    assert [len(part) for part in groups.chunks(cases, 5)] == [5, 2]


def _related() -> list[Case]:
    cases = [case(str(n), relation=relation) for n, relation in enumerate("abacaab")]
    return [*cases, case("none")]


def _ids(found: Sequence[Sequence[Case]]) -> list[list[str]]:
    return [[c.id for c in group] for group in found]


def test_groups_of_one_relation() -> None:
    cases = _related()
    assert _ids(groups.of_relations(cases, 2, 1)) == [["0", "2"], ["4", "5"], ["1", "6"]]
    drawn = protocols._groups(cases, 2, 0, None, 1)
    assert len(drawn) == 3
    assert all(len({c.relation for c in group}) == 1 for group in drawn)
    assert drawn == protocols._groups(cases, 2, 0, None, 1)
    firsts = [protocols._groups(cases, 2, seed, 2, 1) for seed in range(20)]
    assert {len(first) for first in firsts} == {1}
    assert {first[0][0].relation for first in firsts} == {"a", "b"}  # no relation is always cut
    with pytest.raises(EditorError, match=r"at least 5 cases.*found at most 4.*plan.relations"):
        groups.of_relations(cases, 5, 1)


def test_groups_of_two_relations_take_equal_shares() -> None:
    cases = _related()  # four of a, two of b, one of c
    assert _ids(groups.of_relations(cases, 2, 2)) == [["0", "1"], ["2", "6"], ["4", "3"]]
    assert _ids(groups.of_relations(cases, 3, 2)) == [["0", "2", "1"], ["4", "5", "6"]]
    with pytest.raises(EditorError, match=r"at least 3 and 3 cases.*found at most 4 and 2"):
        groups.of_relations(cases, 6, 2)
    with pytest.raises(EditorError, match=r"at least 1 and 1 cases.*found at most 4 and 0"):
        groups.of_relations([c for c in cases if c.relation == "a"], 2, 2)


def test_probes_about_another_edit_are_taken_out() -> None:
    ada, tom = case("Ada"), case("Tom Asker")
    kept, dropped = groups.judged([ada, tom])
    # Ada's neighbour asks what Tom Asker's edit asks; of the two subjects only its own is spared.
    assert kept[0].neighbours == ()
    assert kept[0].unrelated == ada.unrelated
    assert kept[1].neighbours == tom.neighbours
    assert kept[1].unrelated == ()
    assert dropped == 3
    assert groups.judged([ada]) == ([ada], 0)


def test_names_are_whole_words_and_passages_are_read() -> None:
    probes = (Probe("", "The life of TOM  Asker."), Probe("", "Tom Askerson sang."))
    kept, _ = groups.judged([case("Ada", unrelated=probes), case("Tom Asker")])
    assert kept[0].unrelated == probes[1:]


def test_a_hard_neighbour_may_name_an_edited_subject_but_not_ask_for_the_edit() -> None:
    near = (Probe("Where does Tom Asker work?", "Rome"), Probe("Where was Tom Asker born?", "Rome"))
    kept, _ = groups.judged([case("Ada", hard_neighbours=near), case("Tom Asker")])
    assert kept[0].hard_neighbours == near[:1]


def test_edits_of_one_group_must_agree() -> None:
    clash = [case("Ada"), case("Ada", id="Ada again", target_new="Rome")]
    with pytest.raises(EditorError, match=r"Ada and Ada again give .* different targets"):
        groups.judged(clash)
    assert len(groups.judged([case("Ada"), case("Ada", id="Ada again")])[0]) == 2


def test_training_draws_no_bystander_that_is_edited() -> None:
    ada, tom = case("Ada"), case("Tom", unrelated=(Probe("Where was Ada born?", "Rome"),))
    spared = groups.spared([ada, tom])
    assert spared == [ada.unrelated, ada.unrelated]  # Tom has none left of his own
    with pytest.raises(
        EditorError, match="an unrelated example that no edit of a group of 2 is about"
    ):
        groups.spared([replace(ada, unrelated=()), tom])
    with pytest.raises(EditorError, match="a group of 1 is about"):
        groups.spared([replace(ada, unrelated=())])


class Summed(Editor):
    """MEND untrained: rows whose sum is known."""

    def __init__(self, face: Face) -> None:
        self.learner = mend.Mend(face, mend.Config(norm=False, alpha=0.3), 0).eval()

    def edit(self, face: Face, requests: list[Request], k: int = 1) -> Edits:  # type: ignore[override]
        patch = self.learner.patch(face, draws.encode(face, requests)).detach()
        rows = len(requests) // k
        return Edits(join(patch, k), (1,) * rows, (False,) * rows)


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_every_case_is_scored_under_its_groups_joint_edit(name: str) -> None:
    face = make_face(name)
    cases = [replace(c, subject="") for c in make_cases(face, 5)]
    config = scoring.Config(cases=4, rows=7)
    rows, timings = protocols.batched(face, Summed(face), cases, config, k=2)
    drawn = protocols._groups(cases, 2, 0, None)
    alone = []
    for group in drawn:
        kept, _ = groups.judged(group)
        joint = join(Summed(face).edit(face, [c.request() for c in group]).patch)
        for one in kept:
            alone += scoring.score(face, [one], joint, config)
    assert rows["case_id"].tolist() == [row["case_id"] for row in alone]
    for column in ("nll_new", "kl", "tf_exact"):
        expected = pytest.approx([row[column] for row in alone], abs=1e-5, nan_ok=True)
        assert rows[column].tolist() == expected
    assert set(rows["protocol"]) == {"batched"}
    assert set(rows["k"]) == {2}
    assert timings["left_out"].tolist() == [1]
    assert timings["n_groups"].tolist() == [2]
    asked = sum(len(list(questions(c, 0, 0))) for group in drawn for c in group)
    assert timings["edited_bystanders"].sum() == asked - len(rows) > 0


def test_one_case_at_a_time_is_batched_with_groups_of_one() -> None:
    face = make_face("gpt2")
    cases = make_cases(face, 3)
    one, _ = protocols.single(face, Summed(face), cases, scoring.Config())
    assert set(one["protocol"]) == {"single"}
    assert len(one) == 5 * 3


def test_training_in_groups_validates_on_groups() -> None:
    """Three held-out cases are no group of four: they make one smaller group."""
    face = make_face("gpt2")
    cases = [replace(c, subject="") for c in make_cases(face, 15)]
    distinct = [replace(c, prompt=f"{c.prompt} {c.id}") for c in cases]
    config = metalearn.Config(
        steps=4, batch=8, k=4, lr=1e-3, lr_alpha=1e-3, heldout=2, validate_every=2, warm_up=4
    )
    learner = mend.Mend(face, mend.Config(rank=4, alpha=1e-2), seed=0)
    curve = metalearn.train(face, learner, Material(cases=distinct, seed=3), config)
    assert [row["step"] for row in curve] == [2, 4]
    drawn = draws.draw(draws.Reader(face), distinct[:7], 3, 0, 3)
    assert drawn.k == 3
    assert len(drawn.edits.requests) == 6


def test_no_more_groups_are_scored_than_hold_the_cases_asked_for() -> None:
    face = make_face("gpt2")
    cases = [replace(c, subject="") for c in make_cases(face, 6)]
    config = scoring.Config(generate=False, most=3)
    rows, timings = protocols.batched(face, Summed(face), cases, config, k=2)
    assert rows["case_id"].nunique() == 4
    assert timings["left_out"].sum() == 2
