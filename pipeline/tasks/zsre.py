"""zsRE: questions and answers about subjects, for encoder-decoder and for language models.

A case asks a taught question. Its new answer comes from the base model's lower beams (the label
stage), or from the source where `targets` says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal

from pipeline.errors import DataError, SettingsError
from pipeline.records import Case, Prepared, Probe, normalise
from pipeline.tasks import zsre_nq
from pipeline.tasks.drawing import (
    Drawn,
    Parts,
    check_sizes,
    choose_facts,
    draw_cases,
    objects_said,
    split,
    stream,
    untaught,
)
from pipeline.tasks.items import Item, check_subject, make_cases, split_items, take
from pipeline.tasks.items import untaught as items_untaught
from pipeline.tasks.source import Folder, Row, Source, numbered
from pipeline.tasks.teaching import Lessons, count
from pipeline.world import Fact, World


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is taught and what is edited.

    Attributes:
        facts: about how many facts the base model is taught (composed ones come on top).
        taught_wordings: in how many wordings each; the others are held out from teaching.
        heldout: how many held-out wordings measure how far the base model generalises.
        composed: also teach what two facts together say, so that edits can have implications.
        targets: "model" leaves new answers to the label stage; "source" takes another object of
            the right type (sample) or MEND's file of alternatives (local).
        corrections: how many facts that the base model is not taught are prepared as cases of
            their own, edited to the truth; those that it gets wrong are kept.
        locality: what the unrelated probes of all splits are: "zsre" takes other cases' facts, as
            MEND's Table 4; "nq" Natural Questions, as its Table 3 (local only); "composed" what two
            facts together say, which no case edits (sample only).
        nq_taught: how many of the Natural Questions the base model is taught then: an answer
            that it does not give cannot be damaged.
        spaced: whether answers begin with a space, as a language model's text needs; an
            encoder-decoder writes them without.
    """

    facts: int = 1500
    taught_wordings: int = 3
    heldout: int = 300
    composed: bool = True
    train_cases: int = 1000
    validation_cases: int = 200
    corrections: int = 0
    targets: Literal["model", "source"] = "model"
    locality: Literal["zsre", "nq", "composed"] = "zsre"
    nq_taught: int = 1500
    neighbours: int = 2
    hard_neighbours: int = 2
    unrelated: int = 4
    spaced: bool = False

    def __post_init__(self) -> None:
        check_sizes(self)
        if self.spaced and self.targets != "source":
            raise SettingsError(
                expected="targets of zsre to be source where answers are spaced",
                found=self.targets,
                remedy="A language model has no lower beams: set benches.zsre.data.targets.",
            )


def prepare(source: Source, config: Config, seed: int) -> Prepared:
    """Examples and cases from a world or from MEND's files.

    Raises:
        DataError: a file is missing, broken or lacks a field.
        SettingsError: the source has too few facts for the settings, or no such locality.
    """
    if isinstance(source, Folder):
        _check_locality(config, ("zsre", "nq"), "the published files")
        prepared = _from_files(source, config, seed)
    else:
        taught = ("composed",) if config.composed else ()
        _check_locality(config, ("zsre", *taught), f"the sample world, composed: {config.composed}")
        prepared = _from_world(source, config, seed)
    return _spaced(prepared) if config.spaced else prepared


def _spaced(prepared: Prepared) -> Prepared:
    """The same with a space before every answer."""

    def space(probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
        return tuple(Probe(probe.prompt, f" {probe.target}") for probe in probes)

    examples = tuple(replace(e, target=f" {e.target}") for e in prepared.examples)
    cases = tuple(
        replace(
            case,
            target_new=case.target_new and f" {case.target_new}",
            target_true=f" {case.target_true}",
            answers=tuple(f" {answer}" for answer in case.answers),
            neighbours=space(case.neighbours),
            hard_neighbours=space(case.hard_neighbours),
            unrelated=space(case.unrelated),
            implied=space(case.implied),
        )
        for case in prepared.cases
    )
    return replace(prepared, examples=examples, cases=cases)


def _check_locality(config: Config, possible: tuple[str, ...], source: str) -> None:
    if config.locality not in possible:
        raise SettingsError(
            expected=f"locality of zsre to be {' or '.join(possible)} with {source}",
            found=config.locality,
            remedy="Change benches.zsre.data.locality"
            + (", or set composed: true." if config.locality == "composed" else "."),
        )


def complete(source: Source, case: Case, seed: int) -> Case:
    """Add what a case's new answer implies, once the answer is known (sample world only)."""
    if not isinstance(source, World) or not case.target_new:
        return case
    answer = case.target_new.lstrip()
    space = case.target_new[: -len(answer)]
    facts = source.implied(case.subject, case.relation, answer)
    rng = stream(seed, "zsre/implied", case.id)
    probes = (rng.choice(_questions(source, fact)) for fact in facts[:1])
    return replace(case, implied=tuple(Probe(p.prompt, space + p.target) for p in probes))


def _questions(world: World, fact: Fact) -> tuple[Probe, ...]:
    patterns = world.relations[fact.relation].questions
    return tuple(Probe(pattern.format(fact.subject), fact.object) for pattern in patterns)


def _from_world(world: World, config: Config, seed: int) -> Prepared:
    facts = choose_facts(world, config.facts, stream(seed, "zsre/facts"))
    subjects = dict.fromkeys(fact.subject for fact in facts)
    composed = [f for s in subjects if config.composed for f in world.composed(s)]
    texts = {fact.key: _questions(world, fact) for fact in (*facts, *composed)}
    wrong = untaught(world, facts, config.corrections, seed, "zsre")
    new = {fact.key: _questions(world, fact) for fact in wrong}
    lessons = Lessons(texts, config.taught_wordings, seed, "zsre", untaught=new)
    sizes = (config.train_cases, config.validation_cases)
    train, held = split(facts, lambda f: f.subject, sizes, stream(seed, "zsre/split"), "zsre")
    far = _composed(composed, held) if config.locality == "composed" else None
    parts = Parts(train, held, wrong, far)
    near = (config.neighbours, config.hard_neighbours, config.unrelated)
    said = objects_said(facts) if config.targets == "source" else {}
    cases = []
    for drawn in draw_cases(world, facts, parts, near, seed, "zsre"):
        case = _world_case(world, drawn, lessons, said)
        cases.append(complete(world, case, seed) if config.composed else case)
    examples = lessons.examples(config.heldout)
    usual = len(cases) - len(wrong)
    counts = count(examples, composed=len(composed), corrections=len(wrong), cases=usual)
    card = {"source": "world", "files": {}, "counts": counts, "dropped": {}}
    return Prepared(examples=examples, cases=tuple(cases), card=card)


def _composed(facts: Sequence[Fact], held: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Composed facts of subjects that are not in validation, and of those that are."""
    subjects = {fact.subject for fact in held}
    train = [fact for fact in facts if fact.subject not in subjects]
    return train, [fact for fact in facts if fact.subject in subjects]


def _world_case(world: World, drawn: Drawn, lessons: Lessons, said: dict[str, list[str]]) -> Case:
    fact, rng = drawn.fact, drawn.rng
    from_source = said and drawn.split != "correction"
    new = world.counterfactual(fact, rng, said.get(fact.relation, ())) if from_source else ""
    return Case(
        id=f"zsre:{fact.key}",
        prompt=lessons.prompt(fact.key).prompt,
        target_new=new,
        target_true=fact.object,
        answers=fact.answers,
        subject=fact.subject,
        relation=fact.relation,
        rephrases=lessons.rephrases(fact.key),
        neighbours=lessons.recall_all(drawn.around.neighbours, rng),
        hard_neighbours=lessons.recall_all(drawn.around.hard, rng),
        unrelated=lessons.recall_all(drawn.around.unrelated, rng),
        source="world",
        split=drawn.split,
    )


QUESTIONS = "zsre/zsre_mend_train_10000.json"
ALTERNATIVES = "zsre/zsre_mend_train_en_10000.txt"


def _from_files(folder: Folder, config: Config, seed: int) -> Prepared:
    dropped: Counter[str] = Counter()
    rows = numbered(folder.json_list(QUESTIONS), "case_id")
    items = _read(folder, rows, config.targets == "source", dropped)
    sizes = (config.train_cases, config.validation_cases)
    fit = _by_relation(items, round(1.2 * sum(sizes)), seed)
    parts = split_items(fit, sizes, seed, "zsre")
    wrong = items_untaught(items, parts, config.corrections, seed, "zsre")
    taught = take(items, [*parts[0], *parts[1]], config.facts, seed, wrong)
    texts = {item.id: item.wordings for item in taught}
    counts = {"read": len(items), "corrections": len(wrong)}
    far = parts
    if config.locality == "nq":
        questions = zsre_nq.read(folder, rows, items, dropped)
        far = zsre_nq.choose(questions, config.nq_taught, seed)
        texts |= {item.id: item.wordings for part in far for item in part}
        counts |= {"nq_read": len(questions), "nq_train": len(far[0]), "nq_validation": len(far[1])}
    new = {item.id: item.wordings for item in wrong}
    lessons = Lessons(
        texts, config.taught_wordings, seed, "zsre", first_is_taught=True, untaught=new
    )
    near = (config.neighbours, config.hard_neighbours, config.unrelated)
    cases = tuple(make_cases(taught, parts, lessons, near, seed, "zsre", wrong, far))
    examples = lessons.examples(config.heldout)
    counts = count(examples, **counts, cases=len(cases) - len(wrong))
    files = dict(sorted(folder.hashes.items()))
    card = {"source": "files", "files": files, "counts": counts, "dropped": dict(dropped)}
    return Prepared(examples=examples, cases=cases, card=card)


def _by_relation(items: Sequence[Item], wanted: int, seed: int) -> list[Item]:
    """At least `wanted` items to edit, if there are as many, all those of a relation together.

    So every kind of question has several answers among the cases, which tell an answer of the right
    type, and neighbours. Items need a rephrasing, and a relation that has another answer.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if len(item.wordings) > 1:
            groups[item.relation].append(item)
    relations = sorted(name for name, g in groups.items() if len({i.target for i in g}) > 1)
    stream(seed, "zsre/relations").shuffle(relations)
    found: list[Item] = []
    while relations and len(found) < wanted:
        found += groups[relations.pop()]
    return found


def _read(
    folder: Folder, rows: Sequence[Row], with_targets: bool, dropped: Counter[str]
) -> list[Item]:
    """Every question once. Here `alt` is the true answer, whatever its name says."""
    targets = _read_targets(folder, rows) if with_targets else [""] * len(rows)
    questions = Counter(normalise(row.text("src")) for row in rows)
    items: dict[str, Item] = {}
    for row, target in zip(rows, targets, strict=True):
        subject, question, answer = (row.text(name) for name in ("subject", "src", "alt"))
        check_subject(subject, question, row)
        if normalise(question) in items:
            dropped["a question that is there already"] += 1
            continue
        if normalise(target) == normalise(answer):
            dropped["a target equal to the truth"] += 1
            continue
        rephrase = row.text("rephrase")
        probes = [Probe(question, answer)]
        if normalise(rephrase) in questions:
            dropped["a rephrasing that is a question of the file"] += 1
        else:
            probes.append(Probe(rephrase, answer))
        items[normalise(question)] = Item(
            id=f"zsre:{row.get('case_id', int)}",
            topic=subject,
            relation=question.replace(subject, "{}"),
            wordings=tuple(probes),
            source=row.place,
            target_new=target,
        )
    return list(items.values())


def _read_targets(folder: Folder, rows: Sequence[Row]) -> list[str]:
    """MEND's alternatives: line i holds question i, a tab, and the target."""
    lines = [line for line in folder.lines(ALTERNATIVES) if line.strip()]
    pairs = [line.split("\t") for line in lines]
    for number, (pair, row) in enumerate(zip_longest(pairs, rows), start=1):
        if pair is None or row is None or len(pair) != 2 or pair[0] != row.text("src"):
            raise DataError(
                expected=f"question {number} of {QUESTIONS}, a tab and a target in line {number} "
                f"of {ALTERNATIVES}",
                found="no such line" if pair is None else repr(pair),
                remedy="Restore both files from their publisher: they belong together.",
            )
    return [pair[1].strip() for pair in pairs]
