"""Entropy and reference score: the reference implementation's numbers, and cosines by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
from cases import make_cases
from conftest import make_face
from fake_runs import row, timing

from pipeline import metrics, metrics_text
from pipeline.records import Case

# Entropies that the reference's own function gives under NLTK's word tokenizer.
REFERENCE = {
    "The quick brown fox jumps over the lazy dog. The quick brown fox runs away.":
        3.6351492859612344,
    "the the the the the the the the": 0.0,
    "He said that he was born in Paris, and that he didn't like it. She said that she was born in "
    "London.": 4.442371508183456,
    "It is a well-known fact (at least in Europe) that prices rose by 3.5% in 1998.":
        4.195925838776071,
    "one two three": 1 / 3,
    "She can't go; they won't stay; we shouldn't ask.": 3.7360781194465966,
    '"Hello," he said. "How are you?" "Fine," she replied.': 4.160838119477825,
    "In 2004, the company paid $1,200 for the painting. It was sold in 2010 for $3,400.":
        4.272594373924845,
    "Run! Run! Run! Where are they? Nobody knows.": 3.0712152396253565,
    "Line one.\nLine two.\nLine three.\nLine two.": 2.83579631485966,
    "a a b b a a b b a a b b c": 2.230704822576258,
}  # fmt: skip


@pytest.mark.parametrize("text", REFERENCE)
def test_entropies_are_those_of_the_reference(text: str) -> None:
    assert metrics_text.entropy(text) == pytest.approx(REFERENCE[text], abs=1e-10)


def test_entropy_by_hand() -> None:
    # Bigrams ab ba ab: 2/3 and 1/3. Trigrams aba bab: one half each, one bit.
    two = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert metrics_text.entropy("a b a b") == pytest.approx((2 / 3 * two + 4 / 3) / 2)
    assert [metrics_text.entropy(text) for text in ("", "one", "one two")] == [0, 0, 0]


def test_words_are_set_apart_as_the_treebank_does() -> None:
    said = metrics_text.words("H. Bell's \"U.S. boat\" (1,200 t) cannot sail; it'll sink...")
    assert said == [
        "H.", "Bell", "'s", "``", "U.S.", "boat", "''", "(", "1,200", "t", ")", "can", "not",
        "sail", ";", "it", "'ll", "sink", "...",
    ]  # fmt: skip


def test_cosines_by_hand() -> None:
    """Of three texts "sea" is in two and "red", "blue" in one: idf = ln(4 / (1 + n)) + 1."""
    likeness = metrics_text.Likeness(["red sea", "blue sea", "red"])
    sea, blue = math.log(4 / 3) + 1, math.log(4 / 2) + 1
    assert likeness("red sea", "red sea") == pytest.approx(1, abs=1e-12)
    # (red, sea) has two equal weights; (blue, sea) is (blue, sea).
    expected = sea**2 / (math.hypot(sea, sea) * math.hypot(blue, sea))
    assert likeness("red sea", "Blue, sea!") == pytest.approx(expected, abs=1e-12)
    assert likeness("green", "red sea") == 0


def texts(case: Case, *pairs: tuple[str, str], prompt: str = " ") -> list[dict[str, object]]:
    return [
        row(
            case.id, "generation", index=i, prompt=prompt, target="", pre_gen_text=old, gen_text=new
        )
        for i, (old, new) in enumerate(pairs)
    ]


def test_a_cases_texts_are_compared_with_its_references_together() -> None:
    first, second, third = make_cases(make_face("gpt2"), 3)
    cases = [
        replace(first, references=("red sea", "blue sea")),
        replace(second, references=("red",)),
        third,
    ]
    rows = texts(first, ("green", "red sea"), ("grey", "blue sea"))
    rows += texts(second, ("red", "")) + texts(third, ("green", "red"))
    found = metrics_text.judged(pd.DataFrame(rows), cases)
    assert found["gen_reference"].tolist()[:3] == pytest.approx([1, 1, 0])
    assert found["pre_gen_reference"].tolist()[:3] == pytest.approx([0, 0, 1])
    assert math.isnan(found["gen_reference"][3])  # nothing to compare with
    assert found["gen_entropy"].tolist() == [0, 0, 0, 0]


def test_a_text_is_judged_with_the_prompt_that_it_opens_with() -> None:
    case = replace(make_cases(make_face("gpt2"), 1)[0], references=("red sea",))
    (whole,) = texts(case, ("", "a b"), prompt="a b ")
    found = metrics_text.judged(pd.DataFrame([whole]), [case])
    assert found["gen_entropy"].tolist() == [metrics_text.entropy("a b a b")]
    assert found["pre_gen_entropy"].tolist() == [0]
    (whole,) = texts(case, ("", " sea"), prompt="red")
    found = metrics_text.judged(pd.DataFrame([whole]), [case])
    assert found["gen_reference"].tolist() == pytest.approx([1])


def test_scores_of_texts_are_means_over_cases() -> None:
    cases = [replace(case, references=("red sea",)) for case in make_cases(make_face("gpt2"), 2)]
    rows = texts(cases[0], ("x", "one two three"), ("x", "a a a"))
    rows += texts(cases[1], ("x", "one two three"))
    frame = metrics_text.judged(pd.DataFrame(rows), cases).assign(bench="counterfact")
    found = metrics.summarise(frame, pd.DataFrame([timing()]))
    assert found["GE"]["value"] == pytest.approx((1 / 6 + 1 / 3) / 2)
    assert found["RS"]["value"] == 0
    assert found["GE"]["n"] == 2
    assert metrics.unedited(frame)["GE"]["value"] == 0
    assert "ES" not in found


def test_without_texts_and_without_references_there_are_no_scores() -> None:
    frame = pd.DataFrame([row("a", "edit", tf_exact=1.0, pre_tf_exact=0.0)])
    assert metrics_text.judged(frame, []) is frame
    alone = metrics_text.judged(pd.DataFrame(texts(Case(id="a", prompt=""), ("x", "y"))), [])
    found = metrics.summarise(alone, pd.DataFrame([timing()]))
    assert "RS" not in found
    assert found["GE"]["value"] == 0


def test_broken_text_counts_as_the_worst() -> None:
    rows = [row("a", "generation", gen_entropy=5.0, pre_gen_entropy=5.0, collapsed=True)]
    rows += [row("b", "generation", gen_entropy=4.0, pre_gen_entropy=5.0)]
    assert metrics.summarise(pd.DataFrame(rows), pd.DataFrame([timing()]))["GE"]["value"] == 2
