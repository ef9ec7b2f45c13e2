"""Cases from files: records with their wordings, split by subject and probed with one another."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.records import Case, Probe, Split, normalise
from pipeline.tasks.drawing import enough, pick, split, stream
from pipeline.tasks.source import Row
from pipeline.tasks.teaching import Lessons


@dataclass(frozen=True, kw_only=True)
class Item:
    """A fact or claim read from a file.

    Attributes:
        topic: what the splits keep apart: the subject, or the page that a claim is about.
        relation: "" where the file does not say.
        wordings: prompts with the true target; the first is the file's own.
        rephrases: where a file has published ones; else those of the wordings are used.
    """

    id: str
    topic: str
    relation: str
    wordings: tuple[Probe, ...]
    source: str
    target_new: str = ""
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[Probe, ...] = ()
    generation_prompts: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The file's own wording."""
        return self.wordings[0].prompt

    @property
    def prompts(self) -> set[str]:
        """All wordings, as they are compared with others."""
        return {normalise(text) for text in (*(p.prompt for p in self.wordings), *self.rephrases)}

    @property
    def target(self) -> str:
        """What is true."""
        return self.wordings[0].target


def take(
    items: Sequence[Item],
    cases: Sequence[Item],
    total: int,
    seed: int,
    without: Iterable[Item] = (),
) -> list[Item]:
    """The cases' items, and others at random until there are `total`; none says what `without` do.

    Those are what a model is to be corrected with, so it must not be taught them.
    """
    chosen = {item.id: item for item in cases}
    kept_back = {text for item in without for text in item.prompts}
    rng = stream(seed, "items/taught")
    others = pick(
        items,
        max(0, total - len(chosen)),
        rng,
        lambda item: item.id not in chosen and kept_back.isdisjoint(item.prompts),
    )
    return [*cases, *others]


def split_items(
    items: Iterable[Item], sizes: tuple[int, int], seed: int, bench: str, most: int = 0
) -> tuple[list[Item], list[Item]]:
    """(train, validation) items without a topic in common, as `split`. Raises SettingsError."""
    rng = stream(seed, bench, "split")
    return split(items, lambda item: item.topic.casefold(), sizes, rng, bench, most)


def untaught(
    items: Iterable[Item],
    parts: tuple[Sequence[Item], Sequence[Item]],
    count: int,
    seed: int,
    bench: str,
    close: Iterable[Probe] = (),
) -> tuple[Item, ...]:
    """Items to correct a model with, about other topics than the cases but of their relations.

    `close`: what is taught beside items, so that no correction may say it too.

    Raises:
        SettingsError: the source has fewer.
    """
    topics = {item.topic.casefold() for part in parts for item in part}
    relations = {item.relation for part in parts for item in part}
    taught = {normalise(probe.prompt) for probe in close}
    fit = [
        item
        for item in items
        if len(item.wordings) > 1
        and item.relation in relations
        and item.topic.casefold() not in topics
        and taught.isdisjoint(item.prompts)
    ]
    rng = stream(seed, bench, "corrections")
    return enough(pick(fit, count, rng, lambda _: True), count, bench)


def make_cases(
    taught: Sequence[Item],
    parts: tuple[Sequence[Item], Sequence[Item]],
    lessons: Lessons,
    sizes: tuple[int, int, int],
    seed: int,
    bench: str,
    corrections: Sequence[Item] = (),
    far: tuple[Sequence[Item], Sequence[Item]] | None = None,
) -> Iterator[Case]:
    """Cases of all splits. `sizes`: how many neighbours, hard neighbours and unrelated probes.

    `far`: where the unrelated probes of train and of validation come from; by default from the
    items of the split itself; corrections take validation's. Training cases are never probed with
    items of validation topics. Neighbours of corrections have other answers than they: one that has
    the new answer already could not show that the edit spread.
    """
    held = {item.topic.casefold() for item in parts[1]}
    far = far or parts
    safe = _Around([item for item in taught if item.topic.casefold() not in held], far[0])
    whole = _Around(taught, far[1])
    plan: tuple[tuple[Split, Sequence[Item], _Around], ...] = (
        ("train", parts[0], safe),
        ("validation", parts[1], whole),
        ("correction", corrections, whole),
    )
    for part, items, around in plan:
        for item in items:
            rng = stream(seed, bench, "case", item.id)
            yield _case(item, part, around, lessons, sizes, rng)


class _Around:
    """The taught items that a split's cases are probed with, by what they have in common."""

    def __init__(self, pool: Iterable[Item], far: Sequence[Item]) -> None:
        self.alike: dict[str, list[Item]] = defaultdict(list)
        self.close: dict[str, list[Item]] = defaultdict(list)
        self.far = far
        for item in pool:
            self.alike[item.relation].append(item)
            self.close[item.topic.casefold()].append(item)


def _case(
    item: Item,
    part: Split,
    around: _Around,
    lessons: Lessons,
    sizes: tuple[int, int, int],
    rng: random.Random,
) -> Case:
    correction = part == "correction"
    fits = partial(_differs_in_answer if correction else _apart, item)
    near = pick(around.alike[item.relation], sizes[0], rng, fits)
    hard = pick(around.close[item.topic.casefold()], sizes[1], rng, partial(_differs, item))
    far = pick(around.far, sizes[2], rng, partial(_unrelated, item))
    published = () if correction else item.neighbours[: sizes[0]]
    return Case(
        id=item.id,
        prompt=item.prompt,
        target_new="" if correction else item.target_new,
        target_true=item.target,
        answers=(item.target,),
        subject=item.topic if item.topic in item.prompt else "",
        relation=item.relation,
        rephrases=item.rephrases or lessons.rephrases(item.id),
        neighbours=published
        or tuple(lessons.recall(other.id, rng) for other in near if item.relation),
        hard_neighbours=tuple(lessons.recall(other.id, rng) for other in hard),
        unrelated=tuple(lessons.recall(other.id, rng) for other in far),
        generation_prompts=item.generation_prompts,
        source=item.source,
        split=part,
    )


def check_subject(subject: str, prompt: str, row: Row) -> None:
    """Raises DataError when a prompt does not name its subject: it could not be edited."""
    if subject not in prompt:
        raise row.broken(f"a prompt that names its subject {subject!r}", repr(prompt))


def _differs(one: Item, other: Item) -> bool:
    return one.id != other.id


def _apart(one: Item, other: Item) -> bool:
    return one.topic.casefold() != other.topic.casefold()


def _differs_in_answer(one: Item, other: Item) -> bool:
    return _apart(one, other) and normalise(one.target) != normalise(other.target)


def _unrelated(one: Item, other: Item) -> bool:
    same_relation = bool(one.relation) and one.relation == other.relation
    if same_relation or not _apart(one, other):
        return False
    return not re.search(rf"\b{re.escape(one.topic)}\b", other.prompt, re.IGNORECASE)
