"""Texts of exactly so many tokens: cases to edit, facts with subjects, a corpus."""

from __future__ import annotations

import random

from benchmarks.sizes import Size
from pipeline.records import Case, Probe

_RESERVED = 4  # special tokens of the vocabulary


class Writer:
    """Draws words by seed."""

    def __init__(self, size: Size, seed: int) -> None:
        self.count = size.vocabulary - _RESERVED
        self.draws = random.Random(f"{seed}/benchmarks")

    def words(self, count: int) -> list[str]:
        """So many tokens."""
        return [f"w{self.draws.randrange(self.count)}" for _ in range(count)]

    def text(self, count: int) -> str:
        """So many tokens, as a text."""
        return " ".join(self.words(count))

    def target(self, count: int) -> str:
        """So many tokens, to stand after a prompt."""
        return " " + self.text(count)


def training_cases(size: Size, count: int, *, passages: bool, seed: int = 0) -> list[Case]:
    """Edits with one rephrasing and one bystander each, a passage or a question."""
    work, writer = size.work, Writer(size, seed)
    cases = []
    for number in range(count):
        if passages:
            bystander = Probe("", writer.text(work.bystander))
        else:
            bystander = Probe(writer.text(work.prompt), writer.target(work.target))
        cases.append(_case(writer, number, work.prompt, work.target, unrelated=(bystander,)))
    return cases


def scored_cases(size: Size, count: int, *, bystanders: int = 4, seed: int = 1) -> list[Case]:
    """Edits with one rephrasing and a few unrelated questions."""
    work, writer = size.work, Writer(size, seed)
    cases = []
    for number in range(count):
        unrelated = [
            Probe(writer.text(work.prompt), writer.target(work.target)) for _ in range(bystanders)
        ]
        cases.append(_case(writer, number, work.prompt, work.target, unrelated=tuple(unrelated)))
    return cases


def facts(size: Size, count: int, seed: int = 2) -> list[Case]:
    """CounterFact's form: 13 prompts (edit, 2 paraphrases, 10 neighbours), two targets each."""
    work, writer = size.work, Writer(size, seed)
    cases = []
    for number in range(count):
        neighbours = [
            Probe(writer.text(work.fact_prompt), writer.target(work.fact_target)) for _ in range(10)
        ]
        case = _case(
            writer, number, work.fact_prompt, work.fact_target, 2, neighbours=tuple(neighbours)
        )
        cases.append(case)
    return cases


def corpus(size: Size, seed: int = 3) -> list[str]:
    """Texts to take second moments over."""
    writer = Writer(size, seed)
    return [writer.text(size.work.text) for _ in range(size.work.texts)]


def _case(
    writer: Writer,
    number: int,
    prompt: int,
    target: int,
    rephrases: int = 1,
    *,
    neighbours: tuple[Probe, ...] = (),
    unrelated: tuple[Probe, ...] = (),
) -> Case:
    words = writer.words(prompt)
    old = writer.target(target)
    return Case(
        id=f"case-{number}",
        prompt=" ".join(words),
        target_new=writer.target(target),
        target_true=old,
        subject=" ".join(words[prompt // 2 - 2 : prompt // 2]),
        prediction=old,
        rephrases=tuple(writer.text(prompt) for _ in range(rephrases)),
        neighbours=neighbours,
        unrelated=unrelated,
        split="train",
    )
