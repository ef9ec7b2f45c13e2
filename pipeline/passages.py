"""Encyclopedic passages of the sample world: Wikitext's form."""

from __future__ import annotations

import random
from collections import deque

from pipeline.names import WOMEN
from pipeline.world import Fact, World


def write_passage(world: World, subject: str, words: tuple[int, int], rng: random.Random) -> str:
    """A text about a subject and what it is tied to, of about `words` (least, most) words.

    It opens with the subject's own facts in random order and wording, then follows their objects.
    """
    wanted = rng.randint(*words)
    sentences: list[str] = []
    length = 0
    queue, seen = deque([subject]), {subject}
    while queue:
        current = queue.popleft()
        facts = [*world.about(current), *world.composed(current)]
        rng.shuffle(facts)
        for i, fact in enumerate(facts):
            sentence = _sentence(world, fact, opening=i == 0, rng=rng)
            size = len(sentence.split())
            if length >= words[0] and length + size > wanted:
                return " ".join(sentences)
            sentences.append(sentence)
            length += size
            if fact.object not in seen and world.about(fact.object):
                seen.add(fact.object)
                queue.append(fact.object)
    return " ".join(sentences)


def _sentence(world: World, fact: Fact, opening: bool, rng: random.Random) -> str:
    """One fact in words; after a paragraph's opening, mostly with a short form of the name."""
    relation = world.relations[fact.relation]
    pattern = rng.choice(relation.statements)
    name = fact.subject
    if not opening and pattern.startswith("{} "):
        name = rng.choice(_short_names(world.kinds[name], name))
    return f"{pattern.format(name)} {fact.object}."


def _short_names(kind: str, name: str) -> tuple[str, ...]:
    if kind == "person":
        first, *_, last = name.split()
        pronoun = "She" if first in WOMEN else "He"
        return pronoun, pronoun, last
    return "It", "It", name
