"""Free texts to numbers: how varied they are, and how much like texts that state the new fact.

Sources: generation entropy and reference score of the ROME paper as its code computes them: of the
whole text, the prompt that it opens with included. Both are kept as they come; tables show them
times 100. No torch here.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.records import Case

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

# By length of n-gram; the mean of the weighted entropies is taken, not their sum.
WEIGHTS: Mapping[int, float] = {2: 2 / 3, 3: 4 / 3}

# The Penn Treebank's conventions, in order: what is set apart from the word that it stands at.
_RULES = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r'(^|[\s(\[{<])"', r"\1 `` "),
        (r'"', " '' "),
        (r"(\.\.\.|--|[;@#$%&?!()\[\]{}<>])", r" \1 "),
        (r"([:,])(?!\d)", r" \1 "),
        # A full stop ends a sentence but after an initial ("H. Bell") or another stop ("U.S.").
        (r"(?<!\b[^\W\d_])(?<!\.)\.(?='*(?:\s|$))", " . "),
        (r"\b([Cc]an)(not)\b", r"\1 \2"),
        (r"(?i)(n't|'(?:s|m|d|ll|re|ve))\b", r" \1"),
        (r"(?<=[^\s'])'(?=\s|$)", " '"),
    )
)


def words(text: str) -> list[str]:
    """Words and punctuation marks, contractions in two ("did", "n't")."""
    for pattern, put in _RULES:
        text = pattern.sub(put, text)
    return text.split()


def entropy(text: str) -> float:
    """Generation entropy in bits: the mean of 2/3 H of its 2-grams and 4/3 H of its 3-grams.

    A text that repeats itself has little. One without any n-gram has none.
    """
    tokens = words(text)
    parts = [weight * _entropy(_grams(tokens, n)) for n, weight in WEIGHTS.items()]
    return sum(parts) / len(parts)


def _grams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _entropy(counts: Counter[tuple[str, ...]]) -> float:
    total = counts.total()
    shares = (count / total for count in counts.values())
    return 0.0 - sum(share * math.log2(share) for share in shares)


class Likeness:
    """Cosine of TF-IDF vectors, words weighed by how few of the reference texts have them."""

    def __init__(self, corpus: Iterable[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer  # a second to import

        self._weigh: TfidfVectorizer = TfidfVectorizer().fit(corpus)

    def __call__(self, text: str, reference: str) -> float:
        """Between 0 and 1; 0 where either has no word of the reference texts."""
        one, other = self._weigh.transform([text, reference])  # of unit length, or zero
        return float((one @ other.T).sum())


def judged(outcomes: pd.DataFrame, cases: Sequence[Case]) -> pd.DataFrame:
    """The same rows with what their `generation` texts are worth, edited and unedited (`pre_*`).

    `gen_entropy` of each text, and `gen_reference` of all texts of a case together against all
    its references together; NaN elsewhere and where a case has no reference.

    Args:
        cases: of the whole benchmark: all their references weigh the words, so that a score does
            not depend on which cases were scored.
    """
    texts = outcomes[outcomes["probe"] == "generation"]
    if texts.empty:
        return outcomes
    references = {case.id: " ".join(case.references) for case in cases if case.references}
    corpus = sorted({text for case in cases for text in case.references})
    likeness = Likeness(corpus) if corpus else None
    for prefix in ("pre_", ""):
        column = texts["prompt"] + texts[f"{prefix}gen_text"]
        scores = _scores(texts["case_id"], column, references, likeness)
        outcomes = outcomes.assign(
            **{
                f"{prefix}gen_entropy": column.map(entropy).reindex(outcomes.index),
                f"{prefix}gen_reference": scores.reindex(outcomes.index),
            }
        )
    return outcomes


def _scores(
    ids: pd.Series, texts: pd.Series, references: Mapping[str, str], likeness: Likeness | None
) -> pd.Series:
    """For every text, its case's score."""
    told: dict[str, list[str]] = defaultdict(list)
    for case_id, text in zip(ids, texts, strict=True):
        told[case_id].append(text)
    scores = {
        case_id: likeness(" ".join(own), references[case_id])
        for case_id, own in told.items()
        if likeness is not None and case_id in references
    }
    return ids.map(scores).astype(float)
