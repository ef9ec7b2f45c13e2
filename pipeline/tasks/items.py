"""Cases from files: records with their wordings, split by subject and probed with one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.records import Case, Probe, Split
from pipeline.tasks.drawing import pick, split, stream
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
    def target(self) -> str:
        """What is true."""
        return self.wordings[0].target


def take(items: Sequence[Item], cases: Sequence[Item], total: int, seed: int) -> list[Item]:
    """The cases' items, and others at random until there are `total`."""
    chosen = {item.id: item for item in cases}
    rng = stream(seed, "items/taught")
    others = pick(items, max(0, total - len(chosen)), rng, lambda item: item.id not in chosen)
    return [*cases, *others]


def split_items(
    items: Iterable[Item], sizes: tuple[int, int], seed: int, bench: str
) -> tuple[list[Item], list[Item]]:
    """(train, validation) items without a topic in common. Raises SettingsError: too few."""
    rng = stream(seed, bench, "split")
    return split(items, lambda item: item.topic.casefold(), sizes, rng, bench)


def make_cases(
    taught: Sequence[Item],
    parts: tuple[Sequence[Item], Sequence[Item]],
    lessons: Lessons,
    sizes: tuple[int, int, int],
    seed: int,
    bench: str,
) -> Iterator[Case]:
    """Cases of both splits. `sizes`: how many neighbours, hard neighbours and unrelated probes.

    Training cases are never probed with items of validation topics.
    """
    held = {item.topic.casefold() for item in parts[1]}
    pools = [[item for item in taught if item.topic.casefold() not in held], taught]
    splits: tuple[Split, Split] = ("train", "validation")
    for part, items, pool in zip(splits, parts, pools, strict=True):
        alike: Mapping[str, list[Item]] = _group(pool, by_topic=False)
        close = _group(pool, by_topic=True)
        for item in items:
            rng = stream(seed, bench, "case", item.id)
            near = pick(alike[item.relation], sizes[0], rng, partial(_apart, item))
            hard = pick(close[item.topic.casefold()], sizes[1], rng, partial(_differs, item))
            far = pick(items, sizes[2], rng, partial(_unrelated, item))
            yield Case(
                id=item.id,
                prompt=item.prompt,
                target_new=item.target_new,
                target_true=item.target,
                answers=(item.target,),
                subject=item.topic if item.topic in item.prompt else "",
                relation=item.relation,
                rephrases=item.rephrases or lessons.rephrases(item.id),
                neighbours=item.neighbours[: sizes[0]]
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


def _group(items: Iterable[Item], by_topic: bool) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.topic.casefold() if by_topic else item.relation].append(item)
    return groups


def _differs(one: Item, other: Item) -> bool:
    return one.id != other.id


def _apart(one: Item, other: Item) -> bool:
    return one.topic.casefold() != other.topic.casefold()


def _unrelated(one: Item, other: Item) -> bool:
    same_relation = bool(one.relation) and one.relation == other.relation
    return _apart(one, other) and not same_relation
