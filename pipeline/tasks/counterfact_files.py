"""CounterFact's published files: reduced records, whole records, and ParaRel's patterns.

A reduced record's `rephrase_prompt` is mostly a generation prompt, so it is never read:
rephrasings are ParaRel's patterns of the same relation that end right before the object, and for
whole records the published paraphrase prompts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.records import Probe, normalise
from pipeline.tasks.items import Item, check_subject
from pipeline.tasks.source import Folder, Row, numbered

REDUCED = tuple(f"counterfact/counterfact-{part}.json" for part in ("edit", "train", "val"))
WHOLE = "counterfact/counterfact_portability_gpt4.json"
PATTERNS = "pararel/pattern_data/graphs_json/*.jsonl"
FACTS = "pararel/trex_lms_vocab/*.jsonl"


@dataclass(frozen=True)
class Patterns:
    """ParaRel: the statements of each relation, and which relations a statement or fact has."""

    statements: dict[str, tuple[str, ...]]
    relations: dict[str, frozenset[str]]
    facts: dict[tuple[str, str], frozenset[str]]

    def relation(self, statement: str, subject: str, target: str) -> str:
        """The relation that a statement words, "" if none or several do.

        Where several share the statement, the one that has the fact decides.
        """
        found = set(self.relations.get(statement, ()))
        if len(found) > 1:
            found &= self.facts.get((subject, target), frozenset())
        return found.pop() if len(found) == 1 else ""

    def subject(self, prompt: str) -> str:
        """Whom a prompt is about, by the longest statement that it follows; "" if there is none."""
        parts = (text.partition("{}") for text in self.relations)
        fits = [
            (len(head) + len(tail), prompt[len(head) : len(prompt) - len(tail)])
            for head, _, tail in parts
            if prompt.startswith(head) and prompt.endswith(tail)
        ]
        words = [(size, name) for size, name in fits if name and name == name.strip(" ,")]
        return max(words)[1] if words else ""

    def distinct(self, relation: str) -> list[str]:
        """The statements of one relation alone: others would have several right answers."""
        return [text for text in self.statements[relation] if len(self.relations[text]) == 1]


def read_patterns(folder: Folder, whole: dict[int, Row]) -> Patterns:
    """Patterns that end with the object, and those of the whole records, which name a relation."""
    statements: dict[str, dict[str, None]] = defaultdict(dict)
    for name in folder.names(PATTERNS):
        for row in folder.json_lines(name):
            text = row.text("pattern").rstrip(" .")
            if text.startswith("[X]") and text.endswith(" [Y]"):
                statement = text[: -len(" [Y]")].replace("[X]", "{}")
                statements[PurePosixPath(name).stem][statement] = None
    for row in whole.values():
        request = Row(row.get("requested_rewrite", dict), row.place)
        statements[request.text("relation_id")][request.text("prompt")] = None
    facts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in folder.names(FACTS):
        for row in folder.json_lines(name):
            facts[row.text("sub_label"), row.text("obj_label")].add(PurePosixPath(name).stem)
    relations: dict[str, set[str]] = defaultdict(set)
    for name, texts in statements.items():
        for text in texts:
            relations[text].add(name)
    return Patterns(
        {name: tuple(texts) for name, texts in statements.items()},
        {text: frozenset(names) for text, names in relations.items()},
        {pair: frozenset(names) for pair, names in facts.items()},
    )


def read_whole(folder: Folder) -> dict[int, Row]:
    """The records in CounterFact's whole schema, by case."""
    return {row.get("case_id", int): row for row in folder.json_list(WHOLE)}


def read_items(
    folder: Folder, whole: dict[int, Row], patterns: Patterns, dropped: Counter[str]
) -> list[Item]:
    """Every case with a prompt of its own, a known relation and another wording."""
    rows = numbered((row for name in REDUCED for row in folder.json_list(name)), "case_id")
    prompts = Counter(normalise(row.text("prompt")) for row in rows)
    items: dict[tuple[str, str], Item] = {}
    for row in rows:
        subject, prompt, truth = (row.text(n) for n in ("subject", "prompt", "ground_truth"))
        check_subject(subject, prompt, row)
        relation = patterns.relation(prompt.replace(subject, "{}"), subject, truth)
        others = _others(patterns, relation, subject, prompt)
        if prompts[normalise(prompt)] > 1:
            dropped["cases that share their prompt with another"] += 1
        elif not relation:
            dropped["cases whose wording fits no relation of ParaRel, or several"] += 1
        elif (subject.casefold(), relation) in items:
            dropped["cases with the subject and relation of another"] += 1
        elif not others:
            dropped["cases whose relation has one wording only"] += 1
        elif normalise(row.text("target_new")) == normalise(truth):
            dropped["cases whose target is the truth"] += 1
        else:
            record = whole.get(row.get("case_id", int))
            items[subject.casefold(), relation] = Item(
                id=f"counterfact:{row.get('case_id', int)}",
                topic=subject,
                relation=relation,
                wordings=tuple(Probe(text, f" {truth}") for text in (prompt, *others)),
                source=row.place,
                target_new=f" {row.text('target_new')}",
                rephrases=_texts(record, "paraphrase_prompts"),
                neighbours=_neighbours(row, record),
                generation_prompts=tuple(dict.fromkeys(_texts(record, "generation_prompts"))),
            )
    return _unambiguous(list(items.values()), dropped)


def _others(patterns: Patterns, relation: str, subject: str, prompt: str) -> list[str]:
    """The prompt in the relation's other statements."""
    if not relation:
        return []
    texts = (text.replace("{}", subject) for text in patterns.distinct(relation))
    return [text for text in texts if text != prompt]


def _unambiguous(items: list[Item], dropped: Counter[str]) -> list[Item]:
    """The items without those neighbours whose prompt has another true end elsewhere."""
    truths: dict[str, set[str]] = defaultdict(set)
    for item in items:
        for probe in (*item.wordings, *item.neighbours):
            truths[normalise(probe.prompt)].add(probe.target)
    kept = []
    for item in items:
        clear = tuple(p for p in item.neighbours if len(truths[normalise(p.prompt)]) == 1)
        dropped["neighbourhood prompts with several true ends"] += len(item.neighbours) - len(clear)
        kept.append(replace(item, neighbours=clear))
    return kept


def _neighbours(row: Row, record: Row | None) -> tuple[Probe, ...]:
    """Neighbourhood prompts: all share the case's true object."""
    if record is None:
        return (Probe(row.text("locality_prompt"), f" {row.text('locality_ground_truth')}"),)
    target = f" {row.text('ground_truth')}"
    texts = dict.fromkeys(_texts(record, "neighborhood_prompts"))
    return tuple(Probe(text, target) for text in texts)


def _texts(record: Row | None, field: str) -> tuple[str, ...]:
    """A list of texts of a whole record, () where there is only a reduced one."""
    if record is None:
        return ()
    texts = record.get(field, list)
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise record.broken(f"texts in the field {field!r}", repr(texts)[:60])
    return tuple(texts)
