"""What else a folder says of CounterFact's facts: Wikipedia sentences, and facts for tracing.

LAMA's T-REx files hold sentences that state a Wikidata fact, its object masked. Cut before the
object, where they name the subject, they are one more wording to teach a base model. Whole, they
are texts about others that a new object is true of: references for reference scores.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.records import Case, Probe, normalise
from pipeline.tasks.drawing import stream
from pipeline.tasks.source import Folder, Row

SENTENCES = "lama_trex/P*.jsonl"
KNOWN = "counterfact/known_1000.json"
_MASK = "[MASK]"


@dataclass(frozen=True)
class Sentence:
    """A sentence that states a fact: its subject as the file names it, cut, and whole."""

    subject: str
    cut: str
    target: str
    whole: str


@dataclass(frozen=True)
class Sentences:
    """By (subject, object), those that can be taught; by (relation, object), all of them."""

    of_fact: dict[tuple[str, str], list[Sentence]]
    of_object: dict[tuple[str, str], list[Sentence]]

    def taught(self, subject: str, target: str, count: int) -> tuple[Probe, ...]:
        """A fact's shortest sentences as wordings."""
        found = sorted(self.of_fact.get((subject, target), ()), key=lambda s: (len(s.cut), s.cut))
        wordings = dict.fromkeys(Probe(s.cut.rstrip(), f" {s.target}") for s in found)
        return tuple(wordings)[:count]

    def references(self, case: Case, count: int, rng: random.Random) -> tuple[str, ...]:
        """Texts about other subjects that the case's new object is true of."""
        found = self.of_object.get((case.relation, case.target_new.strip()), ())
        texts = sorted({s.whole for s in found if s.subject != case.subject})
        return tuple(rng.sample(texts, min(count, len(texts))))


def read_sentences(folder: Folder, most_words: int) -> Sentences:
    """The sentences of every relation. Raises DataError where there are none, or one is broken.

    Args:
        most_words: longer ones are no wordings, and neither are those with other letters than
            ASCII's, each of which takes a small vocabulary several tokens.
    """
    found = Sentences(defaultdict(list), defaultdict(list))
    for name in folder.names(SENTENCES):
        relation = PurePosixPath(name).stem
        for row in folder.json_lines(name):
            subject, target = row.text("sub_label"), row.text("obj_label")
            for masked, surface in _evidences(row):
                cut = masked.partition(_MASK)[0]
                sentence = Sentence(subject, cut, surface, masked.replace(_MASK, surface))
                found.of_object[relation, target].append(sentence)
                plain = cut.isascii() and cut.endswith(" ") and len(cut.split()) <= most_words
                if plain and subject in cut and surface == target:
                    found.of_fact[subject, target].append(sentence)
    return found


def _evidences(row: Row) -> Iterator[tuple[str, str]]:
    """(masked sentence, object's surface) of a record, sentences with one mask, each once."""
    seen = set()
    for values in row.get("evidences", list):
        inner = Row(values, row.place)
        masked, surface = inner.text("masked_sentence"), inner.text("obj_surface")
        if masked.count(_MASK) == 1 and masked not in seen:
            seen.add(masked)
            yield masked, surface


def read_known(folder: Folder, taught: dict[str, str], without: Iterable[str]) -> list[Case]:
    """Facts made for causal tracing, as cases without a new answer.

    Args:
        taught: by normalised prompt, what else the model is taught: a fact that says otherwise is
            left out.
        without: normalised prompts that the model must not be taught.
    """
    kept_back, facts = set(without), {}
    for row in folder.json_list(KNOWN):
        prompt, target = row.text("prompt"), f" {row.text('attribute')}"
        text, subject = normalise(prompt), row.text("subject")
        if text in kept_back or taught.get(text, target) != target or subject not in prompt:
            continue
        facts[text] = Case(
            id=f"known:{row.get('known_id', int)}",
            prompt=prompt,
            target_true=target,
            subject=subject,
            relation=row.text("relation_id"),
            source=row.place,
        )
    return list(facts.values())


def with_references(
    cases: Iterable[Case], sentences: Sentences, count: int, seed: int
) -> tuple[Case, ...]:
    """The cases with reference texts, drawn by seed."""
    return tuple(
        replace(
            case,
            references=sentences.references(
                case, count, stream(seed, "counterfact/references", case.id)
            ),
        )
        for case in cases
    )
