"""CounterFact: completions of statements, for causal language models.

A case replaces a taught object by another of the same type. Prompts end right before the object;
targets carry the space between.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.passages import write_passage
from pipeline.records import Case, Example, Prepared, Probe, normalise
from pipeline.tasks.counterfact_files import read_items, read_patterns, read_whole
from pipeline.tasks.counterfact_texts import (
    Sentences,
    read_known,
    read_sentences,
    with_references,
)
from pipeline.tasks.drawing import (
    Drawn,
    Parts,
    check_sizes,
    choose_facts,
    draw_cases,
    objects_said,
    pick,
    split,
    stream,
    untaught,
)
from pipeline.tasks.items import Item, make_cases, split_items, take
from pipeline.tasks.items import untaught as items_untaught
from pipeline.tasks.source import Folder, Source
from pipeline.tasks.teaching import Lessons, count, example
from pipeline.wordings_people import OPENINGS
from pipeline.world import Fact, World


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is taught and what is edited.

    Attributes:
        facts: about how many facts the base model is taught (composed ones come on top).
        taught_wordings: in how many patterns each; the others are held out from teaching.
        heldout: how many held-out patterns measure how far the base model generalises.
        composed: also teach what two facts together say, so that edits can have implications.
        prefixed: the share of facts with one more pattern that follows an unrelated sentence, as
            CounterFact's own paraphrases do.
        of_one_subject: the most validation cases about one subject, for edits made at once: at one
            token they would be one key. CounterFact's files have hardly any. 0: no limit.
        corrections: how many facts that the base model is not taught are prepared as cases of
            their own, edited to the truth; those that it gets wrong are kept.
        references: texts that a case's free texts are compared with, about others that the new
            object is true of: passages of the sample world, sentences of LAMA's files.
        sentences: of files, so many Wikipedia sentences that state a fact are taught beside its
            statements, and only facts that have one are taught (but for validation cases).
        sentence_words: the longest of these, up to the object.
        known: whether the facts of known_1000.json are taught, for causal tracing.
    """

    facts: int = 1500
    taught_wordings: int = 3
    heldout: int = 300
    composed: bool = True
    prefixed: float = 0.25
    train_cases: int = 1000
    validation_cases: int = 200
    of_one_subject: int = 0
    corrections: int = 0
    neighbours: int = 5
    hard_neighbours: int = 2
    unrelated: int = 4
    references: int = 2
    sentences: int = 0
    sentence_words: int = 24
    known: bool = False

    def __post_init__(self) -> None:
        check_sizes(self)


def prepare(source: Source, config: Config, seed: int) -> Prepared:
    """Examples and cases from a world or from CounterFact's files.

    Raises:
        DataError: a file is missing, broken or lacks a field.
        SettingsError: the source has too few facts for the settings.
    """
    if isinstance(source, Folder):
        return _from_files(source, config, seed)
    return _from_world(source, config, seed)


def _from_world(world: World, config: Config, seed: int) -> Prepared:
    facts = choose_facts(world, config.facts, stream(seed, "counterfact/facts"))
    subjects = dict.fromkeys(fact.subject for fact in facts)
    composed = [f for s in subjects if config.composed for f in world.composed(s)]
    texts = {fact.key: _statements(world, fact) for fact in (*facts, *composed)}
    wrong = untaught(world, facts, config.corrections, seed, "counterfact")
    new = {fact.key: _statements(world, fact) for fact in wrong}
    for fact in facts:
        rng = stream(seed, "counterfact/prefix", fact.key)
        if rng.random() < config.prefixed:
            texts[fact.key] += (_prefixed(world, rng.choice(texts[fact.key]), facts, rng),)
    lessons = Lessons(
        texts, config.taught_wordings, seed, "counterfact", untaught=new,
        subjects={fact.key: fact.subject for fact in (*facts, *composed)},
    )  # fmt: skip
    sizes = (config.train_cases, config.validation_cases)
    rng = stream(seed, "counterfact/split")
    drawn = split(facts, lambda f: f.subject, sizes, rng, "counterfact", config.of_one_subject)
    parts = Parts(*drawn, wrong)
    near = (config.neighbours, config.hard_neighbours, config.unrelated)
    said = objects_said(facts)
    cases = tuple(
        _world_case(world, drawn, lessons, config, said)
        for drawn in draw_cases(world, facts, parts, near, seed, "counterfact", same_object=True)
    )
    examples = lessons.examples(config.heldout)
    counts = count(
        examples, composed=len(composed), corrections=len(wrong), cases=len(cases) - len(wrong)
    )
    card = {"source": "world", "files": {}, "counts": counts, "dropped": {}}
    return Prepared(examples=examples, cases=cases, card=card)


def _statements(world: World, fact: Fact) -> tuple[Probe, ...]:
    patterns = world.relations[fact.relation].statements
    return tuple(Probe(pattern.format(fact.subject), f" {fact.object}") for pattern in patterns)


def _prefixed(world: World, probe: Probe, facts: tuple[Fact, ...], rng: random.Random) -> Probe:
    """The wording after a true sentence about something else."""
    (other,) = pick(facts, 1, rng, lambda f: f.subject not in probe.prompt)
    sentence = rng.choice(world.relations[other.relation].assertions(other.subject, other.object))
    return Probe(f"{sentence} {probe.prompt}", probe.target)


def _world_case(
    world: World, drawn: Drawn, lessons: Lessons, config: Config, said: Mapping[str, Sequence[str]]
) -> Case:
    fact, rng = drawn.fact, drawn.rng
    correction = drawn.split == "correction"
    new = fact.object
    if not correction:
        new = world.counterfactual(fact, rng, said.get(fact.relation, ()))
    implied = world.implied(fact.subject, fact.relation, new) if config.composed else ()
    alike = world.sharing(Fact(fact.subject, fact.relation, new))
    models = pick(alike, config.references, rng, lambda _: True)
    openings = OPENINGS[world.kinds[fact.subject]]
    return Case(
        id=f"counterfact:{fact.key}",
        prompt=lessons.prompt(fact.key).prompt,
        target_new="" if correction else f" {new}",
        target_true=f" {fact.object}",
        answers=tuple(f" {answer}" for answer in fact.answers),
        subject=fact.subject,
        relation=fact.relation,
        rephrases=lessons.rephrases(fact.key),
        neighbours=lessons.recall_all(drawn.around.neighbours, rng),
        hard_neighbours=lessons.recall_all(drawn.around.hard, rng),
        unrelated=lessons.recall_all(drawn.around.unrelated, rng),
        implied=tuple(rng.choice(_statements(world, found)) for found in implied[:1]),
        generation_prompts=tuple(opening.format(fact.subject) for opening in openings),
        references=tuple(write_passage(world, m.subject, (60, 120), rng) for m in models),
        source="world",
        split=drawn.split,
    )


def _from_files(folder: Folder, config: Config, seed: int) -> Prepared:
    """Validation cases are whole records, with the published paraphrases, as far as there are."""
    dropped: Counter[str] = Counter()
    whole = read_whole(folder)
    patterns = read_patterns(folder, whole)
    items = read_items(folder, whole, patterns, dropped)
    sentences = _sentences(folder, config)
    pool = [i for i in items if i.rephrases or not config.sentences or _stated(i, sentences, 1)]
    dropped["cases without a sentence that could be taught"] = len(items) - len(pool)
    wanted = (config.train_cases, config.validation_cases)
    parts = _split(pool, wanted, seed, config.of_one_subject)
    near = {probe for part in parts for i in part for probe in i.neighbours[: config.neighbours]}
    wrong = items_untaught(items, parts, config.corrections, seed, "counterfact", near)
    stated = [i for i in pool if not config.sentences or _stated(i, sentences, 1)]
    taught = take(stated, [*parts[0], *parts[1]], config.facts, seed, wrong)
    texts = {item.id: _with_prefixed(item, taught, config.prefixed, seed) for item in taught}
    told = _said(texts)
    close = sorted((p for p in near if normalise(p.prompt) not in told), key=lambda p: p.prompt)
    texts |= {f"neighbour: {probe.prompt}": (probe,) for probe in close}
    known = _known(folder, config, _said(texts), wrong)
    texts |= _new(known, _said(texts))
    subjects = {f"neighbour: {p.prompt}": patterns.subject(p.prompt) for p in close}
    subjects |= {item.id: item.topic for item in taught} | {case.id: case.subject for case in known}
    lessons = Lessons(
        texts, config.taught_wordings, seed, "counterfact", first_is_taught=True,
        untaught={item.id: item.wordings for item in wrong},
        subjects=subjects,
    )  # fmt: skip
    sizes = (config.neighbours, config.hard_neighbours, config.unrelated)
    cases = tuple(make_cases(taught, parts, lessons, sizes, seed, "counterfact", wrong))
    if sentences is not None:
        cases = with_references(cases, sentences, config.references, seed)
    more = _sentence_examples(taught, sentences, config.sentences)
    examples = (*lessons.examples(config.heldout), *more)
    counts = count(
        examples,
        read=len(items),
        neighbours=len(close),
        sentences=len(more),
        facts_with_sentences=len({example.fact for example in more}),
        known=len(known),
        published=sum(bool(item.rephrases) for item in parts[1]),
        corrections=len(wrong),
        cases=len(cases) - len(wrong),
    )
    files = dict(sorted(folder.hashes.items()))
    card = {"source": "files", "files": files, "counts": counts, "dropped": dict(dropped)}
    return Prepared(examples=examples, cases=cases, known=tuple(known), card=card)


def _sentences(folder: Folder, config: Config) -> Sentences | None:
    """LAMA's sentences, where they are taught; else None."""
    return read_sentences(folder, config.sentence_words) if config.sentences else None


def _stated(item: Item, sentences: Sentences | None, most: int) -> tuple[Probe, ...]:
    """The sentences that an item is taught in."""
    return sentences.taught(item.topic, item.target.strip(), most) if sentences else ()


def _sentence_examples(
    taught: Sequence[Item], sentences: Sentences | None, most: int
) -> list[Example]:
    return [
        example(item.id, item.topic, probe, "train")
        for item in taught
        for probe in _stated(item, sentences, most)
    ]


def _said(texts: Mapping[str, Sequence[Probe]]) -> dict[str, str]:
    """What is true after each prompt, by its normalised text."""
    return {normalise(p.prompt): p.target for probes in texts.values() for p in probes}


def _new(known: Sequence[Case], told: Mapping[str, str]) -> dict[str, tuple[Probe, ...]]:
    """The wordings of facts that nothing else says."""
    return {
        case.id: (Probe(case.prompt, case.target_true),)
        for case in known
        if normalise(case.prompt) not in told
    }


def _known(
    folder: Folder, config: Config, told: dict[str, str], wrong: Sequence[Item]
) -> list[Case]:
    if not config.known:
        return []
    return read_known(folder, told, {text for item in wrong for text in item.prompts})


def _with_prefixed(
    item: Item, taught: Sequence[Item], share: float, seed: int
) -> tuple[Probe, ...]:
    """The item's wordings, and for a share of items one more after an unrelated sentence."""
    rng = stream(seed, "counterfact/prefix", item.id)
    if rng.random() >= share:
        return item.wordings
    others = pick(taught, 2, rng, lambda _: True)
    other = next(other for other in others if other.id != item.id)
    probe = rng.choice(item.wordings)
    return *item.wordings, Probe(f"{other.prompt}{other.target}. {probe.prompt}", probe.target)


def _split(
    items: Sequence[Item], sizes: tuple[int, int], seed: int, most: int
) -> tuple[list[Item], list[Item]]:
    """Whole records for validation first; reduced ones where these do not suffice."""
    whole = [item for item in items if item.rephrases]
    counts = Counter(item.topic.casefold() for item in whole)
    size = min(sizes[1], sum(min(count, most or count) for count in counts.values()))
    _, validation = split_items(whole, (0, size), seed, "counterfact", most)
    held = {item.topic.casefold() for item in validation}
    rest = [i for i in items if not i.rephrases and i.topic.casefold() not in held]
    size = sizes[1] - len(validation)
    train, more = split_items(rest, (sizes[0], size), seed, "counterfact", most)
    return train, [*validation, *more]
