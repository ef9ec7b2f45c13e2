"""FEVER: true and false claims, for binary classifiers.

A case is a claim. Its new label is drawn by the label stage: with probability one half the
opposite of what the base model says, else what it says already. What a flipped claim implies is
open (a false birthplace names no other), so cases have no implied probes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.records import LABELS, Case, Prepared, Probe, normalise
from pipeline.tasks.drawing import (
    Drawn,
    Parts,
    check_sizes,
    choose_facts,
    draw_cases,
    split,
    stream,
    untaught,
)
from pipeline.tasks.items import Item, make_cases, split_items, take
from pipeline.tasks.source import Folder, Row, Source, numbered
from pipeline.tasks.teaching import Lessons, count
from pipeline.world import Fact, World


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is taught and what is edited.

    Attributes:
        claims: about how many claims the base model is taught, half of them false.
        taught_wordings: in how many wordings each; the others are held out from teaching.
        heldout: how many held-out wordings measure how far the base model generalises.
        corrections: how many claims that the base model is not taught are prepared as cases of
            their own, edited to the truth; those that it gets wrong are kept.
    """

    claims: int = 1500
    taught_wordings: int = 3
    heldout: int = 300
    train_cases: int = 1000
    validation_cases: int = 200
    corrections: int = 0
    neighbours: int = 2
    hard_neighbours: int = 2
    unrelated: int = 4

    def __post_init__(self) -> None:
        check_sizes(self)


def prepare(source: Source, config: Config, seed: int) -> Prepared:
    """Examples and cases from a world or from FEVER's files.

    Raises:
        DataError: a file is missing, broken or lacks a field.
        SettingsError: the source has too few claims for the settings.
    """
    if isinstance(source, Folder):
        return _from_files(source, config, seed)
    return _from_world(source, config, seed)


def _from_world(world: World, config: Config, seed: int) -> Prepared:
    facts = choose_facts(world, config.claims, stream(seed, "fever/facts"))
    order = stream(seed, "fever/truth").sample(range(len(facts)), len(facts))
    # Every second fact of a random order is told falsely, so the labels are balanced.
    texts = {
        fact.key: _claims(world, fact, place % 2 == 0, seed)
        for fact, place in zip(facts, order, strict=True)
    }
    wrong = untaught(world, facts, config.corrections, seed, "fever")
    new = {f.key: _claims(world, f, i % 2 == 0, seed) for i, f in enumerate(wrong)}
    lessons = Lessons(texts, config.taught_wordings, seed, "fever", untaught=new)
    sizes = (config.train_cases, config.validation_cases)
    rng = stream(seed, "fever/split")
    parts = Parts(*split(facts, lambda f: f.subject, sizes, rng, "fever"), wrong)
    near = (config.neighbours, config.hard_neighbours, config.unrelated)
    drawn = draw_cases(world, facts, parts, near, seed, "fever")
    cases = tuple(_world_case(case, lessons) for case in drawn)
    examples = lessons.examples(config.heldout)
    true = sum(probes[0].target == LABELS[1] for probes in texts.values())
    counts = count(
        examples, true_claims=true, corrections=len(wrong), cases=len(cases) - len(wrong)
    )
    card = {"source": "world", "files": {}, "counts": counts, "dropped": {}}
    return Prepared(examples=examples, cases=cases, card=card)


def _claims(world: World, fact: Fact, true: bool, seed: int) -> tuple[Probe, ...]:
    """Every wording of one claim: the fact, or the fact with another object of its type."""
    object_ = fact.object
    if not true:
        object_ = world.counterfactual(fact, stream(seed, "fever/false", fact.key))
    wordings = world.relations[fact.relation].assertions(fact.subject, object_)
    return tuple(Probe(wording, LABELS[true]) for wording in wordings)


def _world_case(drawn: Drawn, lessons: Lessons) -> Case:
    fact, rng = drawn.fact, drawn.rng
    claim = lessons.prompt(fact.key)
    return Case(
        id=f"fever:{fact.key}",
        prompt=claim.prompt,
        target_true=claim.target,
        answers=(claim.target,),
        subject=fact.subject,
        relation=fact.relation,
        rephrases=lessons.rephrases(fact.key),
        neighbours=lessons.recall_all(drawn.around.neighbours, rng),
        hard_neighbours=lessons.recall_all(drawn.around.hard, rng),
        unrelated=lessons.recall_all(drawn.around.unrelated, rng),
        source="world",
        split=drawn.split,
    )


CLAIMS = ("fever/paper_dev.jsonl", "fever/paper_test.jsonl")
REPHRASINGS = "fever/eren_fever_filtered.json"
_TRUTH = {"SUPPORTS": LABELS[1], "REFUTES": LABELS[0], "NOT ENOUGH INFO": ""}


def _from_files(folder: Folder, config: Config, seed: int) -> Prepared:
    dropped: Counter[str] = Counter()
    claims = _read_claims(folder, dropped)
    items = _add_rephrasings(folder, claims, dropped)
    fit = [item for item in items if len(item.wordings) > 1]
    sizes = (config.train_cases, config.validation_cases)
    # Pages have several claims each: their topics are set aside before the others take them all.
    _, wrong = split_items(fit, (0, config.corrections), seed, "fever/corrections")
    apart = {item.topic.casefold() for item in wrong}
    rest = [item for item in fit if item.topic.casefold() not in apart]
    parts = split_items(rest, sizes, seed, "fever")
    taught = take(items, [*parts[0], *parts[1]], config.claims, seed, wrong)
    texts = {item.id: item.wordings for item in taught}
    new = {item.id: item.wordings for item in wrong}
    lessons = Lessons(
        texts, config.taught_wordings, seed, "fever", first_is_taught=True, untaught=new
    )
    near = (config.neighbours, config.hard_neighbours, config.unrelated)
    cases = tuple(make_cases(taught, parts, lessons, near, seed, "fever", wrong))
    examples = lessons.examples(config.heldout)
    counts = count(
        examples,
        read=len(items),
        with_rephrasings=len(fit),
        true_claims=sum(item.target == LABELS[1] for item in taught),
        corrections=len(wrong),
        cases=len(cases) - len(wrong),
    )
    files = dict(sorted(folder.hashes.items()))
    card = {"source": "files", "files": files, "counts": counts, "dropped": dict(dropped)}
    return Prepared(examples=examples, cases=cases, card=card)


def _read_claims(folder: Folder, dropped: Counter[str]) -> dict[str, Item]:
    """Verified claims by FEVER's id: each claim once, and none with two different labels."""
    rows = numbered((row for name in CLAIMS for row in folder.json_lines(name)), "id")
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.text("label") not in _TRUTH:
            raise row.broken(f"a label out of {', '.join(_TRUTH)}", repr(row.text("label")))
        labels[normalise(row.text("claim"))].add(row.text("label"))
    claims: dict[str, Item] = {}
    seen: set[str] = set()
    for row in rows:
        claim, truth = row.text("claim").strip(), _TRUTH[row.text("label")]
        if len(labels[normalise(claim)]) > 1:
            dropped["claims with contradictory labels"] += 1
        elif not truth:
            dropped["claims without enough information"] += 1
        elif normalise(claim) in seen:
            dropped["claims that are there already"] += 1
        else:
            seen.add(normalise(claim))
            name = str(row.get("id", int))
            claims[name] = Item(
                id=f"fever:{name}",
                topic=_page(row),
                relation="",
                wordings=(Probe(claim, truth),),
                source=row.place,
            )
    return claims


def _page(row: Row) -> str:
    """The page that the claim is checked against, without what tells it from its namesakes."""
    for evidence in row.get("evidence", list):
        for step in evidence if isinstance(evidence, list) else ():
            if isinstance(step, list) and len(step) > 2 and step[2]:
                title = str(step[2]).replace("_", " ").replace("-COLON-", ":")
                title = title.replace("-LRB-", "(").replace("-RRB-", ")")
                return re.sub(r" \(.*\)$", "", title)
    raise row.broken("a page's title in the evidence of a verified claim", "none")


def _add_rephrasings(folder: Folder, claims: dict[str, Item], dropped: Counter[str]) -> list[Item]:
    """The claims, with their rephrasings where the file's labels agree that they are such.

    The file rephrases the claim (labels "yes") or, where its edit statement contradicts the claim,
    still the claim, with labels "no". `edit_scope_true_ans` is not aligned with the scope.
    """
    taken = {normalise(item.prompt) for item in claims.values()}
    found = dict(claims)
    for row in folder.json_list(REPHRASINGS):
        item = claims.get(row.text("_id"))
        if item is None:
            dropped["rephrasings of claims that are not used"] += 1
            continue
        same = row.text("edit_statement") == item.prompt
        texts = _scope(row, "yes" if same else "no")
        new = [text for text in texts if normalise(text) not in taken]
        if not new:
            dropped["rephrasings with labels against the rule, or none left"] += 1
            continue
        taken.update(map(normalise, new))
        probes = tuple(Probe(text, item.target) for text in new)
        found[row.text("_id")] = replace(item, wordings=(*item.wordings, *probes))
    return list(found.values())


def _scope(row: Row, wanted: str) -> list[str]:
    """The texts after the edit statement itself; none if a label is not the wanted one."""
    pairs: Iterable[Any] = row.get("edit_scope", list)[1:]
    texts = []
    for pair in pairs:
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise row.broken("pairs of a text and a label in 'edit_scope'", repr(pair)[:60])
        if pair[1] != wanted:
            return []
        texts.append(pair[0].strip())
    return [text for text in texts if text]
