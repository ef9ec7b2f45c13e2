"""Outcome rows: batched rows equal one case at a time; measures by hand on chosen logits."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from cases import make_cases
from conftest import make_face, pairs_for

from pipeline import measures, protocols, scoring
from pipeline.editing import draws
from pipeline.editing.patch import Patch, applied, linear_map, weight_OI
from pipeline.editing.updates import Dense
from pipeline.editors import ft, mend
from pipeline.models import Batch, Face
from pipeline.models.seq2seq import Seq2Seq
from pipeline.questions import questions
from pipeline.records import Case

CONFIG = scoring.Config(cases=8, rows=7)


def mend_patch(face: Face, cases: list[Case]) -> Patch:
    learner = mend.Mend(face, mend.Config(norm=False, alpha=0.3), 0).eval()
    edits = draws.encode(face, [case.request() for case in cases])
    return learner.patch(face, edits).detach()


def assert_rows_match(one: list[scoring.Row], two: list[scoring.Row]) -> None:
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            if isinstance(value, float):
                assert value == pytest.approx(b[name], abs=1e-5, nan_ok=True), name
            else:
                assert value == b[name], name


def test_32_edits_in_rows_equal_one_at_a_time(face: Face) -> None:
    cases = make_cases(face, 32)
    rows = scoring.score(face, cases, mend_patch(face, cases), CONFIG)
    singles = []
    for case in cases:
        singles += scoring.score(face, [case], mend_patch(face, [case]), CONFIG)
    assert_rows_match(rows, singles)


def test_32_fine_tuned_edits_in_rows_equal_one_at_a_time() -> None:
    """In float64, for RMSprop divides by gradients that are all rounding."""
    face = make_face("gpt2")
    face.model.double()
    cases = make_cases(face, 32)
    editor = ft.Editor(ft.Config(rate=1e-3, steps=10))
    rows, _ = protocols.single(face, editor, cases, CONFIG)
    singles, _ = protocols.single(face, editor, cases, scoring.Config(cases=1, rows=7))
    assert_rows_match(rows.to_dict("records"), singles.to_dict("records"))  # type: ignore[arg-type]


def test_no_edit_changes_nothing(face: Face) -> None:
    cases = make_cases(face, 3)
    for row in scoring.score(face, cases, Patch({}), CONFIG):
        assert row["kl"] == 0
        assert row["argmax_agree"] == 1
        for name in ("tf_exact", "tf_token_acc", "nll_new", "nll_true", "gen_text"):
            assert row[name] == row[f"pre_{name}"] or math.isnan(row[name])  # type: ignore[arg-type]


def test_every_probe_of_every_case_has_its_row() -> None:
    face = make_face("bart")
    rows = scoring.score(face, make_cases(face, 2), Patch({}), CONFIG)
    kinds = ["edit", "rephrase", "neighbour", "unrelated", "unrelated"]
    assert [row["probe"] for row in rows] == kinds * 2
    assert [row["case_id"] for row in rows] == ["case-0"] * 5 + ["case-1"] * 5
    assert [row["index"] for row in rows] == [0, 0, 0, 0, 1] * 2


def test_a_classifiers_free_answer_is_the_one_that_it_writes() -> None:
    face = make_face("bert")
    cases = make_cases(face, 8)
    patch = mend_patch(face, cases)
    rows = scoring.score(face, cases, patch, CONFIG)
    assert len({row["gen_text"] for row in rows}) == 2
    for case, edit in zip(cases, range(8), strict=True):
        with applied(face.model, patch, torch.tensor([edit])):
            after = face.write([case.prompt], [1])[0].text
        own = next(row for row in rows if row["case_id"] == case.id and row["probe"] == "edit")
        assert own["gen_text"] == after
        assert own["pre_gen_text"] == face.write([case.prompt], [1])[0].text
        assert own["gen_exact"] == float(after == case.target_new)


@pytest.mark.parametrize("architecture", ["bart", "t5", "gpt2", "opt"])
def test_answers_that_teacher_forcing_tells_are_those_that_would_be_written(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    face = make_face(architecture)
    cases = make_cases(face, 6)
    edits = ft.Editor(ft.Config(rate=1e-2, steps=60)).edit(face, [c.request() for c in cases])
    assert sum(edits.stopped_early) > 1
    told = scoring.score(face, cases, edits.patch, CONFIG)
    monkeypatch.setattr(type(face), "completed", Face.completed)
    written = scoring.score(face, cases, edits.patch, CONFIG)
    assert_rows_match(told, written)
    assert any(row["gen_exact"] for row in told)


def test_nothing_is_told_of_a_target_that_joins_its_prompts_last_token() -> None:
    """Then teacher forcing tells nothing of the prompt alone, whose tokens are others."""
    face = make_face("gpt2")
    cases = make_cases(face, 6)
    edits = ft.Editor(ft.Config(rate=1e-2, steps=60)).edit(face, [c.request() for c in cases])
    pairs = [(case.prompt, case.target_new) for case in cases]
    pairs[2] = (pairs[2][0] + pairs[2][1][:2], pairs[2][1][2:])
    with applied(face.model, edits.patch):
        written = face.write([p for p, _ in pairs], [len(e.labels) for e in face.tokenise(pairs)])
    found = face.completed(pairs)
    assert found.pop(2) is None
    assert found == [answer.opening for i, answer in enumerate(written) if i != 2]


@pytest.mark.parametrize("architecture", ["bart", "t5"])
def test_a_target_is_spelled_up_to_where_its_text_ends(architecture: str) -> None:
    face = make_face(architecture)
    assert isinstance(face, Seq2Seq)
    end = face.tokenizer.eos_token
    assert face.spelled(["Oslo", f"Oslo{end}Lima"]) == ["Oslo", "Oslo"]
    face.model.generation_config.eos_token_id = 7  # it ends its texts otherwise
    assert face.spelled(["Oslo"]) == [None]


def test_both_targets_are_weighed_where_there_are_two() -> None:
    face = make_face("gpt2")
    rows = scoring.score(face, make_cases(face, 1), Patch({}), CONFIG)
    by_kind = {row["probe"]: row for row in rows}
    pair = pairs_for(face)[0]
    batch = face.encode([pair, (pair[0], pairs_for(face)[1][1])])
    new, true = measures.nll(face.logits(batch), batch).tolist()
    assert by_kind["edit"]["nll_new"] == pytest.approx(new, abs=1e-5)
    assert by_kind["edit"]["nll_true"] == pytest.approx(true, abs=1e-5)
    assert math.isnan(by_kind["unrelated"]["nll_new"])
    assert by_kind["neighbour"]["nll_new"] > 0


def test_a_correction_competes_with_what_the_model_said() -> None:
    case = replace(make_cases(make_face("gpt2"), 1)[0], target_new=" Oslo", target_true=" Oslo")
    case = replace(case, prediction=" Lima", split="correction")
    asked = list(questions(case, 0, 0))
    assert {q.rival for q in asked if q.kind in ("edit", "rephrase")} == {" Lima"}
    assert {q.rival for q in asked if q.kind == "neighbour"} == {" Oslo"}


def test_a_broken_model_fails_and_is_called_collapsed() -> None:
    face = make_face("gpt2")
    shape = weight_OI(linear_map(face.model, face.sites()[0])).shape
    broken = Patch({face.sites()[0]: Dense(torch.full((1, *shape), math.nan))})
    config = scoring.Config(cases=8, rows=7, generate=False)
    for row in scoring.score(face, make_cases(face, 1), broken, config):
        assert row["collapsed"] is True
        assert math.isnan(row["tf_exact"])
        assert not math.isnan(row["pre_tf_exact"])


@pytest.mark.parametrize(("before", "collapsed"), [("Oslo", True), ("\n\n", False)])
def test_who_was_silent_before_does_not_collapse(before: str, collapsed: bool) -> None:
    row: scoring.Row = {"tf_exact": 0.0, "gen_text": "\n\n", "pre_gen_text": before}
    assert scoring._collapsed(row) is collapsed


def hand_batch(labels: list[int], rows: list[int]) -> Batch:
    return Batch(
        inputs={},
        select_N=torch.arange(len(labels)),
        label_N=torch.tensor(labels),
        row_N=torch.tensor(rows),
        rows=max(rows) + 1,
    )


def test_measures_by_hand() -> None:
    # Row 0 has two tokens, row 1 has one; probabilities are powers of two.
    p = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.5, 0.25, 0.25]])
    q = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5]])
    batch = hand_batch([0, 2, 1], [0, 0, 1])
    two = math.log(2)
    assert measures.nll(p.log(), batch).tolist() == pytest.approx([two, 2 * two])
    assert measures.token_accuracy(p.log(), batch).tolist() == [1, 0]
    assert measures.exact(q.log(), batch).tolist() == [0, 0]
    assert measures.token_accuracy(q.log(), batch).tolist() == [0.5, 0]
    # KL of token 0: 0.5 ln 2 - 0.25 ln 2; of token 1: 0; of token 2: 0.5 ln 2 - 0.25 ln 2.
    assert measures.kl(p.log(), q.log(), batch).tolist() == pytest.approx([two / 8, two / 4])
    assert measures.agreement(p.log(), q.log(), batch).tolist() == [0.5, 0]


def test_a_classifiers_logit_becomes_its_bernoulli() -> None:
    before, after = torch.tensor([0.3]), torch.tensor([-1.1])
    batch = hand_batch([1], [0])
    pair = [torch.stack([torch.zeros(1), z], dim=1) for z in (before, after)]
    p, q = torch.sigmoid(before), torch.sigmoid(after)
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(measures.kl(pair[0], pair[1], batch), expected)
    torch.testing.assert_close(measures.nll(pair[0], batch), -p.log())
    assert measures.exact(pair[0], batch).item() == 1
    assert measures.exact(pair[1], batch).item() == 0


def test_logits_whose_sum_overflows_are_finite_all_the_same() -> None:
    batch = hand_batch([0, 0, 0], [0, 1, 2])
    huge = torch.finfo(torch.float32).max
    rows = [[huge, huge, 0.0], [math.inf, -math.inf, 0.0], [0.0, math.nan, 0.0]]
    assert measures.finite(torch.tensor(rows), batch).tolist() == [1, 0, 0]
    assert measures.finite(torch.tensor(rows[:1]), hand_batch([0], [0])).tolist() == [1]
