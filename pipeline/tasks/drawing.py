"""Seeded draws that the benchmarks share: splits by subject, wordings, and probes around a fact."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import SettingsError
from pipeline.records import Split
from pipeline.world import Fact, World

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def check_sizes(config: DataclassInstance) -> None:
    """Raises SettingsError when a size is negative, or a (least, most) pair is in disorder."""
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, tuple):
            good, wanted = 0 < value[0] <= value[1], "a least and a most, both above zero, in order"
        elif isinstance(value, int | float):
            least = 1 if item.name in ("taught_wordings", "train_cases", "validation_cases") else 0
            good, wanted = value >= least, f"at least {least}"
        else:
            continue
        if not good:
            raise SettingsError(
                expected=f"{item.name} to be {wanted}",
                found=str(value),
                remedy="Change it in the benchmark's data settings.",
            )


def objects_said(facts: Iterable[Fact]) -> dict[str, list[str]]:
    """Of each relation, the objects that some fact has: what a model taught these can answer.

    CounterFact's new objects are those of other facts with the relation (Meng et al. 2022).
    """
    found: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        found[fact.relation].add(fact.object)
    return {relation: sorted(objects) for relation, objects in found.items()}


def stream(seed: int, *purpose: object) -> random.Random:
    """A generator of its own for each purpose, so that one draw never shifts another."""
    return random.Random("/".join(map(str, (seed, *purpose))))


def pick(
    pool: Sequence[T], count: int, rng: random.Random, allowed: Callable[[T], bool]
) -> tuple[T, ...]:
    """Up to `count` different members of a pool that are allowed.

    Draws at random places first, so that a large pool is not walked through for a few members.
    """
    chosen: dict[int, T] = {}
    for _ in range(4 * count if len(pool) > 8 * count else 0):
        place = rng.randrange(len(pool))
        if len(chosen) < count and allowed(pool[place]):
            chosen[place] = pool[place]
    if len(chosen) < count:
        rest = [i for i, item in enumerate(pool) if i not in chosen and allowed(item)]
        for place in rng.sample(rest, min(len(rest), count - len(chosen))):
            chosen[place] = pool[place]
    return tuple(chosen.values())


def split(
    items: Iterable[T],
    group: Callable[[T], str],
    sizes: tuple[int, int],
    rng: random.Random,
    bench: str,
    most: int = 0,
) -> tuple[list[T], list[T]]:
    """(train, validation) items of the wanted sizes, such that no group is in both.

    Args:
        items: what is split, each of the group that `group` names.
        sizes: how many of each.
        rng: draws the groups.
        bench: named where there are too few.
        most: validation items of one group; 0: all of it.

    Raises:
        SettingsError: the source has fewer items than the settings ask for.
    """
    groups: dict[str, list[T]] = defaultdict(list)
    for item in items:
        groups[group(item)].append(item)
    keys = sorted(groups)
    rng.shuffle(keys)
    train: list[T] = []
    validation: list[T] = []
    for key in keys:
        if len(validation) >= sizes[1]:
            train.extend(groups[key])
        elif 0 < most < len(groups[key]):
            validation.extend(rng.sample(groups[key], most))
        else:
            validation.extend(groups[key])
    rng.shuffle(train)
    found = (len(train), min(len(validation), sizes[1]))
    if found[0] < sizes[0] or found[1] < sizes[1]:
        raise SettingsError(
            expected=f"{sizes[0]} train and {sizes[1]} validation cases for {bench}",
            found=f"{found[0]} and {found[1]} in the source",
            remedy="Ask for fewer cases, or teach more facts (world.facts in the sample suite).",
        )
    return train[: sizes[0]], validation[: sizes[1]]


def choose_facts(world: World, count: int, rng: random.Random) -> tuple[Fact, ...]:
    """All facts about subjects drawn at random, until there are about `count`, at most all."""
    subjects = sorted({fact.subject for fact in world.facts})
    rng.shuffle(subjects)
    facts: list[Fact] = []
    for subject in subjects:
        if len(facts) >= count:
            break
        facts.extend(world.about(subject))
    return tuple(facts)


@dataclass(frozen=True)
class Around:
    """The facts that a case is probed with."""

    neighbours: tuple[Fact, ...]
    hard: tuple[Fact, ...]
    unrelated: tuple[Fact, ...]


class Surroundings:
    """Draws the facts around an edited one, all of them among those that the base was taught."""

    def __init__(self, world: World, taught: Iterable[Fact], sizes: tuple[int, int, int]) -> None:
        """`sizes`: how many neighbours, hard neighbours and unrelated facts a case gets."""
        self._world = world
        self._sizes = sizes
        self._taught = {fact.key: fact for fact in taught}
        self._alike: dict[str, list[Fact]] = defaultdict(list)
        for fact in self._taught.values():
            self._alike[fact.relation].append(fact)

    def draw(
        self,
        fact: Fact,
        others: Sequence[Fact],
        rng: random.Random,
        same_object: bool | None = None,
    ) -> Around:
        """What surrounds a fact; `others` are the facts for the unrelated ones.

        With `same_object`, neighbours share the edited fact's true object, as CounterFact's do;
        without, they have another, which corrections need: theirs is the new answer, and a
        neighbour that has it already cannot show that the edit spread. None takes both kinds.
        """
        neighbours, hard, unrelated = self._sizes
        alike = self._alike[fact.relation]
        if same_object:
            alike = [other for other in self._world.sharing(fact) if other.key in self._taught]
        elif same_object is not None:
            alike = [other for other in alike if other.object not in fact.answers]
        tied = {fact.subject, *fact.answers}
        return Around(
            neighbours=pick(alike, neighbours, rng, lambda f: f.subject != fact.subject),
            hard=self._hard(fact, hard, rng),
            unrelated=pick(
                others,
                unrelated,
                rng,
                lambda f: f.relation != fact.relation and not tied & {f.subject, *f.answers},
            ),
        )

    def _hard(self, fact: Fact, count: int, rng: random.Random) -> tuple[Fact, ...]:
        """The same subject under other relations, but one of a subject close by name if any."""
        close = [
            self._taught[key]
            for name in self._world.namesakes(fact.subject)
            if (key := Fact(name, fact.relation, "").key) in self._taught
        ]
        near = pick(close, min(1, count), rng, lambda _: True)
        own = [f for f in self._world.about(fact.subject) if f.key in self._taught]
        same = pick(own, count - len(near), rng, lambda f: f.relation != fact.relation)
        return (*near, *same)


@dataclass(frozen=True)
class Drawn:
    """A fact to edit, its split, what surrounds it, and the generator for its other draws."""

    fact: Fact
    split: Split
    around: Around
    rng: random.Random


@dataclass(frozen=True)
class Parts:
    """The facts of each split, the first two of which the base model was taught.

    `far`: where the unrelated probes of train and of validation come from; by default from the
    facts of the split itself.
    """

    train: Sequence[Fact]
    validation: Sequence[Fact]
    corrections: Sequence[Fact] = ()
    far: tuple[Sequence[Fact], Sequence[Fact]] | None = None


def untaught(
    world: World, taught: Iterable[Fact], count: int, seed: int, bench: str
) -> tuple[Fact, ...]:
    """Facts to correct a model with: of subjects that it was taught nothing about.

    Raises:
        SettingsError: the world has fewer.
    """
    known = {fact.subject for fact in taught}
    rng = stream(seed, bench, "corrections")
    found = pick(world.facts, count, rng, lambda fact: fact.subject not in known)
    return enough(found, count, bench)


def enough(found: tuple[T, ...], count: int, bench: str) -> tuple[T, ...]:
    """The corrections found. Raises SettingsError when they are fewer than the settings ask for."""
    if len(found) < count:
        raise SettingsError(
            expected=f"{count} corrections for {bench}: facts that its base model is not taught",
            found=f"{len(found)} in the source",
            remedy="Ask for fewer, or teach fewer of the facts (in the benchmark's data settings).",
        )
    return found


def draw_cases(
    world: World,
    taught: Sequence[Fact],
    parts: Parts,
    sizes: tuple[int, int, int],
    seed: int,
    bench: str,
    same_object: bool | None = None,
) -> Iterator[Drawn]:
    """The facts of all splits with their surroundings.

    Training cases are never probed with facts of validation subjects; the unrelated probes of
    either split are facts of that split, and those of corrections are validation's.
    """
    held = {fact.subject for fact in parts.validation}
    safe = Surroundings(world, [fact for fact in taught if fact.subject not in held], sizes)
    whole = Surroundings(world, taught, sizes)
    far = parts.far or (parts.train, parts.validation)
    plan: tuple[tuple[Split, Sequence[Fact], Surroundings, Sequence[Fact], bool | None], ...] = (
        ("train", parts.train, safe, far[0], same_object),
        ("validation", parts.validation, whole, far[1], same_object),
        ("correction", parts.corrections, whole, far[1], False),
    )
    for part, facts, surroundings, others, same in plan:
        for fact in facts:
            rng = stream(seed, bench, "case", fact.key)
            yield Drawn(fact, part, surroundings.draw(fact, others, rng, same), rng)
