"""A model of one's own: edited, asked, compared, brought back bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from conftest import make_face, pairs_for
from models_on_disk import FT, QUIET, corrections_for, fitted, logits, model_folder

import pipeline
from pipeline.editable import Correction, Editable, Journal, JournalError, beside
from pipeline.editable.adapter import compress
from pipeline.editable.work import says
from pipeline.editing.gradients import token_gradients
from pipeline.editing.patch import Patch
from pipeline.editing.updates import Dense, Factors
from pipeline.errors import DataError, ModelError, SettingsError
from pipeline.models import Face
from pipeline.stack import Stack, together


@pytest.fixture(params=["gpt2", "t5", "bert"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder of each kind of model."""
    return model_folder(request.param, tmp_path / "model")


def asked(face: Face) -> list[Correction]:
    """Two edits; the second's prompt is the first's neighbour."""
    (one, first), (two, second), *_ = corrections_for(face)
    return [
        Correction(prompt=one, target=first, rephrases=(f"Say: {one}",), neighbours=(two,)),
        Correction(prompt=two, target=second),
    ]


# ---------------------------------------------------------------------- from edit to undo


def test_edit_compare_undo_and_reopen(model: Path) -> None:
    """On every kind of model: what was edited is said, what is undone is not, in any order."""
    one = Editable.load(model, journal=beside(model), guard=QUIET)
    corrections = asked(one.face)
    clean = logits(one.face, one)
    edits = one.edit(corrections, **FT)
    assert [edit.number for edit in edits] == one.in_force == [1, 2]
    assert all(edit.right or edit.overridden for edit in edits)
    kinds = [answer.kind for answer in edits[0].answers]
    assert kinds == ["edit", "rephrase", "neighbour"]
    assert not torch.equal(logits(one.face, one), clean)
    prompts = [item.prompt for item in corrections]
    compared = one.compare(prompts)
    assert [answer.after for answer in compared] == one.ask(prompts)
    assert [answer.before for answer in compared] == Editable.load(model).ask(prompts)
    assert any(answer.changed for answer in compared)

    one.undo(1)  # out of order
    left = logits(one.face, one)
    again = Editable.load(model, journal=beside(model), guard=QUIET)
    assert again.in_force == [2]
    assert torch.equal(logits(again.face, again), left)
    assert again.edits[0].answers == edits[1].answers
    again.undo(2)
    assert torch.equal(logits(again.face, again), clean)
    assert [record["kind"] for record in again.journal()] == ["edit", "edit", "undo", "undo"]
    assert not any(module._forward_hooks for module in again.face.model.modules())


@pytest.mark.parametrize("architecture", ["gpt2", "t5", "bert"])
def test_a_hundred_edits_undone_in_random_order_leave_every_bit(architecture: str) -> None:
    """Gradient steps and dense updates in turn, on overlapping sites; undone as they fall."""
    face = make_face(architecture)
    model = Editable(face, guard=QUIET)
    stack, draw = model._state.stack, random.Random(architecture)
    weights = {name: value.clone() for name, value in face.model.state_dict().items()}
    clean = logits(face, model)
    sites = face.sites()
    found = token_gradients(face, face.encode(pairs_for(face)[:1]), sites).gradients
    waiting = list(range(1, 101))
    for number in range(1, 101):
        some = draw.sample(sites, 2)
        updates = {s: Factors(-1e-2 * found[s].delta_RTO, found[s].u_RTI) for s in some}
        edit = Patch(
            updates if number % 5 else {s: Dense(u.dense_ROI()) for s, u in updates.items()}
        )
        stack.put(number, edit)
        model._state.on[number] = ""
        if number % 10 == 0:  # some in between
            model._state.drop(waiting.pop(draw.randrange(number // 10 * 9)))
    assert not torch.equal(logits(face, model), clean)
    draw.shuffle(waiting)
    for number in waiting:
        model._state.drop(number)
    assert torch.equal(logits(face, model), clean)
    for name, value in face.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_a_hundred_real_edits_and_undos(tmp_path: Path) -> None:
    """The same through the whole way in, on the kind of model that answers fastest."""
    folder = model_folder("bert", tmp_path / "model")
    one = Editable.load(folder, guard=QUIET)
    mend = fitted(one.face, "mend", folder, tmp_path / "mend")
    clean = logits(one.face, one)
    pairs = corrections_for(one.face)
    for number in range(100):
        one.edit([pairs[number % len(pairs)]], editor=mend)
    assert len(one.in_force) == 100
    assert not torch.equal(logits(one.face, one), clean)
    order = one.in_force
    random.Random(0).shuffle(order)
    for number in order[:50]:
        one.undo(number)
    one.undo(*order[50:])
    assert torch.equal(logits(one.face, one), clean)


def test_edits_in_force_together_are_the_sum_of_their_updates() -> None:
    face = make_face("gpt2")
    site = face.sites()[0]
    draws = torch.Generator().manual_seed(0)
    shape = together([Dense(torch.zeros(1, 64, 16))]).dense_ROI().shape
    parts = [
        Factors(torch.randn(1, 3, 64, generator=draws), torch.randn(1, 3, 16, generator=draws)),
        Dense(torch.randn(1, 64, 16, generator=draws)),
        Factors(torch.randn(1, 30, 64, generator=draws), torch.randn(1, 30, 16, generator=draws)),
    ]
    whole = sum(part.dense_ROI().double() for part in parts)
    assert shape == (1, 64, 16)
    torch.testing.assert_close(together(parts).dense_ROI().double(), whole, rtol=0, atol=1e-4)
    stack = Stack()
    for number, part in enumerate(parts, 1):
        stack.put(number, Patch({site: part}))
    assert [*stack.updates()[site]] == parts


def test_edits_build_on_those_in_force_and_together_is_one() -> None:
    face = make_face("gpt2")
    pairs = corrections_for(face)
    one = Editable(face, guard=QUIET)
    (edit,) = one.edit(pairs[:3], together=True, **FT)
    assert len(edit.corrections) == 3
    assert edit.right
    # A second edit of what holds already finds nothing to do: it sees the first.
    (again,) = one.edit([pairs[0]], **FT)
    assert again.steps == 0
    assert one.in_force == [1, 2]


def test_a_temporary_edit_ends_with_its_block(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    clean = logits(one.face, one)
    pair = corrections_for(one.face)[0]
    with one.temporarily([pair], **FT) as (edit,):
        assert edit.right
        assert one.ask(pair[0]).startswith(pair[1])
        assert one.in_force == []
    assert torch.equal(logits(one.face, one), clean)
    assert not (tmp_path / "journal").exists()
    with pytest.raises(ZeroDivisionError), one.temporarily([pair], **FT):
        raise ZeroDivisionError
    assert torch.equal(logits(one.face, one), clean)


# ---------------------------------------------------------------------- requests


def test_a_causal_target_gets_the_space_that_people_leave_out() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    (edit,) = one.edit([("Tom Asker works for", "the guild")], **FT)
    assert edit.corrections[0].target == " the guild"


def test_a_blank_that_ends_a_prompt_belongs_to_what_follows() -> None:
    """No token ends with a blank: the edit shows however the question is asked."""
    one = Editable(make_face("gpt2"), guard=QUIET)
    (edit,) = one.edit([("Tom Asker works for  ", "was built")], **FT)
    assert edit.corrections[0].pair == ("Tom Asker works for", "  was built")
    one = Editable(make_face("gpt2"), guard=QUIET)
    (edit,) = one.edit([("Tom Asker works for ", "was built")], **FT)
    assert edit.right
    assert one.ask("Tom Asker works for ") == one.ask("Tom Asker works for")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"prompt": "Tom works for", "target": "x", "subject": "Ada"}, "the subject 'Ada'"),
        ({"prompt": "Tom works for"}, "text in the field 'target'"),
        ({"prompt": "Tom", "target": "x", "sbject": "Tom"}, "Did you mean 'subject'"),
        ({"prompt": "Tom", "target": 3}, "text in the field 'target'"),
        (("Tom works for", "the guild " * 40), "at most 64 tokens, the model's context"),
        ([], "at least one request"),
        ([("Tom", "a"), ("tom", "b")], "one target for 'tom'"),
        (["Tom"], "a prompt and a target in request 1"),
    ],
)
def test_requests_that_cannot_be_are_named(request_: object, expected: str) -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    with pytest.raises(DataError, match=expected):
        one.edit(request_, **FT)  # type: ignore[arg-type]
    assert one.journal() == []


@pytest.mark.parametrize("prompt", ["", "  ", "\ud800", 5])
def test_what_is_no_text_is_not_asked(prompt: object) -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    with pytest.raises(DataError, match="text"):
        one.ask([prompt])  # type: ignore[list-item]


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_answers_are_as_long_as_asked(architecture: str) -> None:
    one = Editable(make_face(architecture), guard=QUIET)
    short, long = (one.ask("The harbour", tokens) for tokens in (1, 20))
    assert len(short) < len(long)
    assert long.startswith(short)
    with pytest.raises(SettingsError, match="at least one token"):
        one.ask("The harbour", 0)


def test_a_classifier_takes_labels_alone() -> None:
    one = Editable(make_face("bert"), guard=QUIET)
    with pytest.raises(DataError, match="a label out of"):
        one.edit([("Tom works.", "maybe")], **FT)
    assert one.edit([("Tom works.", " True")], **FT)[0].corrections[0].target == "true"


def test_numbers_not_in_force_are_named() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    one.edit(corrections_for(one.face)[:2], **FT)
    one.undo(1)
    with pytest.raises(JournalError, match=r"1 to be an edit in force \(2\).*undone already"):
        one.undo(2, 1)
    with pytest.raises(JournalError, match="no edit of that number"):
        one.undo(3)
    assert one.in_force == [2]


# ---------------------------------------------------------------------- adapters, opening, package


def test_compression_keeps_the_update_and_finds_its_rank() -> None:
    draws = torch.Generator().manual_seed(0)
    left, right = (torch.randn(1, 40, n, generator=draws) for n in (24, 16))
    left[0, 5:] = left[0, :5].repeat(7, 1)  # 40 terms, of which 5 differ on the left
    found = compress([Factors(left, right)])
    assert found.left_RKO.shape[1] == 5
    expected = Factors(left, right).dense_ROI()
    torch.testing.assert_close(found.dense_ROI(), expected, atol=1e-4, rtol=1e-4)
    assert compress([Factors(left, 0 * right)]).left_RKO.shape[1] == 0
    dense = compress([Dense(expected), Factors(left, right)])
    torch.testing.assert_close(dense.dense_ROI(), 2 * expected, atol=1e-4, rtol=1e-4)


def test_folders_that_are_no_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found no such folder"):
        Editable.load(tmp_path / "none")
    folder = model_folder("gpt2", tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "kept")
    with pytest.raises(ModelError, match=rf"weights in {folder}.*found none"):
        Editable.load(folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin\. Pickled weights are not read"):
        Editable.load(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "gpt2"', '"model_type": "mamba"'))
    with pytest.raises(ModelError, match=r"found 'mamba' in .*Known: bart, bert, .*, t5\."):
        Editable.load(folder)
    config.write_text("{")
    with pytest.raises(ModelError, match=r"config in .*config\.json"):
        Editable.load(folder)
    config.unlink()
    with pytest.raises(ModelError, match=r"a model's config\.json"):
        Editable.load(folder)


def test_a_classifier_of_several_labels_is_refused(tmp_path: Path) -> None:
    face = make_face("bert")
    face.model.config.num_labels = 3
    face.model.classifier = torch.nn.Linear(16, 3)
    face.model.save_pretrained(tmp_path / "model")
    face.tokenizer.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"one logit.*found 3 labels"):
        Editable.load(tmp_path / "model")


def test_the_package_gives_it_by_name_alone() -> None:
    assert pipeline.Editable is Editable
    with pytest.raises(AttributeError, match="no attribute 'Edited'"):
        _ = pipeline.Edited
    assert isinstance(Journal(Path("nowhere")).records(), list)


def test_what_another_process_undid_is_no_longer_in_force(tmp_path: Path) -> None:
    folder = model_folder("gpt2", tmp_path / "model")
    one = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    clean, pairs = logits(one.face, one), corrections_for(one.face)
    one.edit(pairs[:1], **FT)
    two = Editable.load(folder, journal=tmp_path / "journal", guard=QUIET)
    two.undo(1)
    with pytest.raises(JournalError, match="undone already"):
        one.undo(1)
    assert one.in_force == []
    assert torch.equal(logits(one.face, one), clean)


def test_an_answer_that_a_model_ends_itself_must_be_the_target() -> None:
    """One that a causal model writes on need only begin so."""
    assert says(" Oslo and", "Oslo", ends=False)
    assert not says("Oslo and", " Oslo", ends=True)
    assert says("Oslo ", " Oslo", ends=True)
    for architecture in ("t5", "gpt2"):
        one = Editable(make_face(architecture), guard=QUIET)
        (edit,) = one.edit(corrections_for(one.face)[:1], **FT)
        assert edit.answers[0].ends is (architecture == "t5")


def test_a_mark_of_the_tokenizer_is_no_target() -> None:
    one = Editable(make_face("gpt2"), guard=QUIET)
    mark = one.face.tokenizer.all_special_tokens[0]
    with pytest.raises(DataError, match="a target of words"):
        one.edit([("The harbour", f"Oslo{mark}")], **FT)
