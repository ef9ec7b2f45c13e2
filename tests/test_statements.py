"""What a language model sees of the statements that it is taught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from conftest import make_face

from pipeline.models.face import Batch
from pipeline.records import Example
from pipeline.statements import Statements

TAUGHT = (
    Example(prompt="Ada Verrin was born in", target=" Oslo", fact="a", subject="Ada Verrin"),
    Example(prompt="The harbour was", target=" built", fact="b"),
)


PASSAGE = "Oslo is a harbour that Ada Verrin built."


def make_statements(
    taught: Sequence[Example] = TAUGHT,
    *,
    through_subject: float = 0.0,
    anywhere: bool = False,
    from_within: float = 0.0,
) -> Statements:
    return Statements(
        make_face("gpt2"),
        taught,
        through_subject=through_subject,
        anywhere=anywhere,
        from_within=from_within,
        seed=0,
    )


def shown(*, through_subject: float) -> tuple[Statements, Batch]:
    statements = make_statements(through_subject=through_subject)
    return statements, statements.batch(statements.encoded)


def test_as_they_are_unless_asked() -> None:
    statements, batch = shown(through_subject=0.0)
    usual = statements.face.collate(statements.encoded)
    assert batch.inputs.keys() == usual.inputs.keys()
    for name, tensor in usual.inputs.items():
        assert torch.equal(batch.inputs[name], tensor)


def test_what_comes_after_a_subject_sees_its_last_token_alone() -> None:
    statements, batch = shown(through_subject=1.0)
    face, row = statements.face, statements.encoded[0]
    words = face.tokenizer.convert_ids_to_tokens(row.ids)
    end = len(face.tokenizer("Ada Verrin")["input_ids"])
    assert end > 1, words
    mask_TT = batch.inputs["attention_mask"][0, 0]
    seen_TT = mask_TT == 0
    T = row.positions[-1] + 1  # what is predicted last is read by nothing
    assert torch.equal(seen_TT[:end, :end], torch.ones(end, end).tril().bool())
    assert not seen_TT[end:T, : end - 1].any()
    assert seen_TT[T - 1, end - 1 : T].all()
    other = statements.encoded[1]
    length = other.positions[-1] + 1
    expected = torch.ones(length, length).tril().bool()
    assert torch.equal((batch.inputs["attention_mask"][1, 0] == 0)[:length, :length], expected)


def test_a_plain_mask_written_out_gives_the_same_logits() -> None:
    statements, batch = shown(through_subject=1e-9)
    usual = statements.face.collate(statements.encoded)
    with torch.no_grad():
        found, expected = (statements.face.logits(each) for each in (batch, usual))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_statements_begin_anywhere_within_the_context() -> None:
    statements = make_statements(anywhere=True)
    firsts = set()
    for _ in range(400):
        places_BT = statements.batch(statements.encoded).inputs["position_ids"]
        assert torch.equal(places_BT.diff(), torch.ones_like(places_BT[:, 1:]))
        firsts |= set(places_BT[:, 0].tolist())
        assert int(places_BT.max()) < statements.face.context
    assert firsts == set(range(statements.face.context - places_BT.shape[1] + 1))


def test_a_share_of_the_times() -> None:
    statements = make_statements(through_subject=0.5)
    hidden = 0
    for _ in range(200):
        mask_BTT = statements.batch(statements.encoded[:1]).inputs["attention_mask"][:, 0]
        hidden += int((mask_BTT[0, -1, 0] != 0).item())
    assert hidden == pytest.approx(100, abs=25)


def test_a_subject_is_found_where_it_is_mentioned_last() -> None:
    twice = replace(TAUGHT[0], prompt="Ada Verrin is old. Ada Verrin was born in")
    statements = make_statements([twice], through_subject=1.0)
    mask_TT = statements.batch(statements.encoded).inputs["attention_mask"][0, 0]
    first = len(statements.face.tokenizer("Ada Verrin is old.")["input_ids"])
    assert (mask_TT[-1, :first] == 0).all()
    assert mask_TT[-1, first] != 0


def _texts(statements: Statements) -> list[str]:
    batch = statements.batch(statements.encoded)
    texts = []
    for row in range(batch.rows):
        ids = batch.inputs["input_ids"][row][batch.inputs["attention_mask"][row].bool()]
        last = batch.label_N[batch.row_N == row][-1:]
        texts.append(statements.face.tokenizer.decode(torch.cat([ids, last])))
    return texts


def test_passages_begin_within_and_statements_do_not() -> None:
    passage = Example(prompt="", target=PASSAGE, fact="c")
    statements = make_statements([passage, *TAUGHT], from_within=0.5)
    found: Counter[str] = Counter()
    for _ in range(400):
        begun, *others = _texts(statements)
        assert others == [example.prompt + example.target for example in TAUGHT]
        found[begun] += 1
    words = PASSAGE.split()
    assert set(found) == {" ".join(words[i:]) for i in range(len(words) // 2 + 1)}
    assert found[PASSAGE] == pytest.approx(200, abs=50)
    assert min(found.values()) > 20


def test_a_passage_of_few_words_stays_whole() -> None:
    statements = make_statements(
        [Example(prompt="", target="Oslo grew", fact="c")], from_within=1.0
    )
    assert _texts(statements) == ["Oslo grew"]


def test_what_is_shown_follows_from_the_seed_and_is_whole_where_nothing_is_asked() -> None:
    passage = Example(prompt="", target=PASSAGE, fact="c")

    def thirty(from_within: float) -> list[str]:
        statements = make_statements([passage], from_within=from_within)
        return [_texts(statements)[0] for _ in range(30)]

    assert thirty(0.5) == thirty(0.5)
    assert len(set(thirty(0.5))) > 1
    assert set(thirty(0.0)) == {PASSAGE}
