"""The sample world: a seeded set of facts, and everything that follows from them.

People live in cities of countries, work for organisations and write works. Since every fact is
known, so are the truth of any statement, the objects of the right type for a counterfactual, what
an edit implies, and which facts are close to it. The wordings lie in `wordings`.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pipeline.errors import SettingsError
from pipeline.names import Namer
from pipeline.wordings import Relation
from pipeline.wordings_people import COMPOSED, PLAIN

# fmt: off
_LISTS = {
    "occupation": (
        "baker", "botanist", "carpenter", "cartographer", "chemist", "composer", "dentist",
        "gardener", "geologist", "glassblower", "journalist", "judge", "lawyer", "librarian",
        "novelist", "painter", "photographer", "physician", "potter", "sculptor", "surveyor",
        "tailor", "teacher", "translator", "weaver", "watchmaker",
    ),
    "field": (
        "astronomy", "botany", "geology", "grammar", "logic", "medicine", "chemistry", "zoology",
        "geometry", "statistics", "economics", "acoustics", "optics", "music theory", "law",
        "public health", "moral philosophy", "ancient history", "marine biology", "heraldry",
    ),
    "instrument": (
        "violin", "cello", "flute", "harp", "trumpet", "clarinet", "bassoon", "guitar", "lute",
        "mandolin", "double bass", "church organ", "piano", "viola", "trombone", "French horn",
        "snare drum", "bagpipes", "accordion", "banjo",
    ),
    "industry": (
        "shipbuilding", "glassmaking", "watchmaking", "mining", "steelmaking", "banking", "brewing",
        "textiles", "insurance", "fishing", "forestry", "ceramics", "telegraphy", "paper making",
        "book printing", "food processing", "railway building", "tea trading", "salt trading",
    ),
    "genre": (
        "detective novel", "ghost story", "love story", "pastoral comedy", "gothic romance",
        "satirical play", "travel memoir", "war chronicle", "fairy tale", "folk ballad",
        "chamber opera", "choral symphony", "historical drama", "verse epic", "sea adventure",
    ),
}
# fmt: on
SMALLEST, LARGEST = 100, 200_000


@dataclass(frozen=True, kw_only=True)
class Config:
    """How large the sample world is: about this many facts, composed ones not counted."""

    facts: int = 2000

    def __post_init__(self) -> None:
        if not SMALLEST <= self.facts <= LARGEST:
            raise SettingsError(
                expected=f"world.facts between {SMALLEST} and {LARGEST}",
                found=str(self.facts),
                remedy="Change world.facts in the suite's settings.",
            )


@dataclass(frozen=True)
class Fact:
    """A true statement. `also` has the other true objects of a relation that is not functional."""

    subject: str
    relation: str
    object: str
    also: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What identifies the fact: functional in the object that is taught."""
        return f"{self.subject} / {self.relation}"

    @property
    def answers(self) -> tuple[str, ...]:
        """Every true object, the one that is taught first."""
        return (self.object, *self.also)


class World:
    """A set of facts with its indexes. Make one with `make_world`."""

    def __init__(self, pools: dict[str, tuple[str, ...]], facts: Iterable[Fact], seed: int) -> None:
        self.seed = seed
        self.pools = pools
        self.facts = tuple(facts)
        self.relations = {relation.name: relation for relation in (*PLAIN, *COMPOSED)}
        self.kinds = {name: kind for kind, pool in pools.items() for name in pool}
        self._known = {(fact.subject, fact.relation): fact for fact in self.facts}
        self._about: dict[str, list[Fact]] = defaultdict(list)
        self._sharing: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        self._namesakes: dict[tuple[str, str], list[str]] = defaultdict(list)
        for fact in self.facts:
            self._about[fact.subject].append(fact)
            self._sharing[fact.relation, fact.object].append(fact)
        for subject in self._about:
            self._namesakes[self._main_word(subject)].append(subject)

    def about(self, subject: str) -> tuple[Fact, ...]:
        """The facts about a subject; none if it is not a subject of this world."""
        return tuple(self._about.get(subject, ()))

    def sharing(self, fact: Fact) -> tuple[Fact, ...]:
        """Facts of other subjects with the same relation and the same object."""
        found = self._sharing[fact.relation, fact.object]
        return tuple(other for other in found if other.subject != fact.subject)

    def namesakes(self, subject: str) -> tuple[str, ...]:
        """Other subjects of the same type whose name shares its main word."""
        found = self._namesakes[self._main_word(subject)]
        return tuple(other for other in found if other != subject)

    def recall(self, subject: str, relation: str) -> Fact | None:
        """The fact about a subject under a plain or composed relation, if there is one."""
        path = self.relations[relation].path
        if path is None:
            return self._known.get((subject, relation))
        middle = self._known.get((subject, path[0]))
        end = middle and self._known.get((middle.object, path[1]))
        return Fact(subject, relation, end.object, end.also) if end else None

    def is_true(self, subject: str, relation: str, object_: str) -> bool:
        """Whether a statement is true, whatever its relation."""
        fact = self.recall(subject, relation)
        return fact is not None and object_ in fact.answers

    def objects(self, relation: str) -> tuple[str, ...]:
        """Everything of the type that a relation's objects have."""
        return self.pools[self.relations[relation].object]

    def counterfactual(self, fact: Fact, rng: random.Random, said: Collection[str] = ()) -> str:
        """An object of the right type that makes the statement false.

        Args:
            said: the objects to draw from, if one of them does; else all of the type.
        """
        right = {*fact.answers, fact.subject}
        if wrong := [other for other in said if other not in right]:
            return rng.choice(wrong)
        while (other := rng.choice(self.objects(fact.relation))) in right:
            pass
        return other

    def composed(self, subject: str) -> tuple[Fact, ...]:
        """Everything that two facts together say about a subject."""
        found = (self.recall(subject, relation.name) for relation in COMPOSED)
        return tuple(fact for fact in found if fact)

    def implied(self, subject: str, relation: str, new: str) -> tuple[Fact, ...]:
        """What follows, and was not so before, once the relation's object is `new`."""
        found = []
        for composed in COMPOSED:
            if composed.path is None or composed.path[0] != relation:
                continue
            end = self._known.get((new, composed.path[1]))
            if end and not self.is_true(subject, composed.name, end.object):
                found.append(Fact(subject, composed.name, end.object, end.also))
        return tuple(found)

    def _main_word(self, subject: str) -> tuple[str, str]:
        """A firm's first word is its own; the last word of a person, a city or a work."""
        kind = self.kinds[subject]
        words = subject.split()
        return kind, words[0 if kind == "organisation" else -1]


def make_world(config: Config, seed: int) -> World:
    """Build the world of a seed. Linear in its size: 200,000 facts take a few seconds."""
    rng = random.Random(f"{seed}/world")
    pools = _name_things(config.facts, rng)
    known: dict[tuple[str, str], Fact] = {}
    couples = _couples(pools["person"], rng)
    for relation in PLAIN:
        for i, subject in enumerate(pools[relation.subject]):
            object_ = _draw_object(relation, subject, i, pools, couples, rng)
            also = _draw_others(relation, object_, pools, rng)
            known[subject, relation.name] = Fact(subject, relation.name, object_, also)
    return World(pools, known.values(), seed)


def _name_things(facts: int, rng: random.Random) -> dict[str, tuple[str, ...]]:
    """Names of every type. Counts are such that all relations together make about `facts`."""
    countries = min(max(5, facts // 100), 200)
    counts = {
        "continent": min(max(3, countries // 4), 8),
        "country": countries,
        "city": max(countries + 2, facts // 25),
        "organisation": max(4, facts // 25),
        "work": max(4, facts // 25),
        "language": max(4, countries // 2),
        "currency": max(4, countries // 2),
        "river": max(5, facts // 60),
    }
    per_kind = {kind: sum(r.subject == kind for r in PLAIN) for kind in (*counts, "person")}
    spent = sum(counts[kind] * per_kind[kind] for kind in counts)
    # People marry one another, so their number is even.
    counts["person"] = max(4, (facts - spent) // per_kind["person"] // 2 * 2)
    namer = Namer(rng)
    return {kind: namer.make(kind, count) for kind, count in counts.items()} | _LISTS


def _couples(people: tuple[str, ...], rng: random.Random) -> dict[str, str]:
    shuffled = rng.sample(people, len(people))
    pairs = list(zip(shuffled[::2], shuffled[1::2], strict=True))
    return dict(pairs) | {second: first for first, second in pairs}


def _draw_object(
    relation: Relation,
    subject: str,
    index: int,
    pools: dict[str, tuple[str, ...]],
    couples: dict[str, str],
    rng: random.Random,
) -> str:
    """The object of a fact, such that the world is consistent: marriages are mutual, and each
    country's capital is one of its own cities."""
    if relation.name == "spouse":
        return couples[subject]
    if relation.name == "country" and index < len(pools["country"]):
        return pools["country"][index]  # the first city of each country, which is its capital
    if relation.name == "capital":
        return pools["city"][index]
    return rng.choice(pools[relation.object])


def _draw_others(
    relation: Relation, object_: str, pools: dict[str, tuple[str, ...]], rng: random.Random
) -> tuple[str, ...]:
    """A second true object for a third of the facts whose relation allows it."""
    if relation.functional or rng.random() > 1 / 3:
        return ()
    other = rng.choice(pools[relation.object])
    return () if other == object_ else (other,)
