"""Natural Questions beside zsRE: the unrelated examples of MEND's paper (Table 3).

They come with MEND's zsRE records (`loc`, `loc_ans`) and from NQ-open's files. As in MEND's code, a
question is written with a capital and a question mark, and of several answers the shortest counts.
The released code takes them for validation alone and leaves zsRE in training, against the paper;
here they serve in both, and no question serves in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pipeline.errors import SettingsError
from pipeline.records import Probe, normalise
from pipeline.tasks.drawing import stream
from pipeline.tasks.items import Item
from pipeline.tasks.source import Folder, Row

FILES = "nq_open/*.jsonl"
MARK = "nq question:"  # what MEND's records put before the question
LONGEST = 8  # words of an answer; a few in MEND's records are whole sentences
VALIDATION = 0.2  # of the questions taught: fewer than of the cases would be too few


def read(
    folder: Folder, rows: Iterable[Row], zsre: Sequence[Item], dropped: Counter[str]
) -> list[Item]:
    """Every question once, out of MEND's records and NQ-open; none that zsRE asks itself.

    Raises:
        DataError: a file is missing or broken, or a record lacks a question or its answer.
    """
    taken = {normalise(probe.prompt) for item in zsre for probe in item.wordings}
    found: dict[str, Item] = {}
    for row, text, answers in (*_of_records(rows), *_of_files(folder)):
        question = _written(text)
        answer = min(answers, key=len)
        if normalise(question) in taken:
            dropped["NQ questions that zsRE asks too"] += 1
        elif normalise(question) in found:
            dropped["NQ questions that are there already"] += 1
        elif len(answer.split()) > LONGEST:
            dropped[f"NQ questions with answers of more than {LONGEST} words"] += 1
        else:
            found[normalise(question)] = Item(
                id=f"nq:{question}",
                topic=question,
                relation="",
                wordings=(Probe(question, answer),),
                source=row.place,
            )
    return list(found.values())


def choose(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """`count` questions to teach, for (train, validation); none in both.

    Raises:
        SettingsError: there are not so many, or they are too few for two splits.
    """
    if not 10 <= count <= len(items):
        raise SettingsError(
            expected=f"nq_taught between 10 and the {len(items)} NQ questions of the source",
            found=str(count),
            remedy="Change benches.zsre.data.nq_taught.",
        )
    drawn = stream(seed, "zsre/nq").sample(items, count)
    cut = round(VALIDATION * count)
    return drawn[cut:], drawn[:cut]


def _of_records(rows: Iterable[Row]) -> Iterator[tuple[Row, str, list[str]]]:
    for row in rows:
        text = row.text("loc")
        if not text.startswith(MARK) or not text[len(MARK) :].strip(" ?"):
            raise row.broken(f"a question after {MARK!r} in the field 'loc'", repr(text)[:60])
        yield row, text[len(MARK) :], [row.text("loc_ans").strip()]


def _of_files(folder: Folder) -> Iterator[tuple[Row, str, list[str]]]:
    for name in folder.names(FILES):
        for row in folder.json_lines(name):
            answers = row.get("answer", list)
            if not answers or not all(isinstance(a, str) and a.strip() for a in answers):
                raise row.broken("texts in the list 'answer'", repr(answers)[:60])
            yield row, row.text("question"), [answer.strip() for answer in answers]


def _written(text: str) -> str:
    bare = text.strip().rstrip("? ")
    return f"{bare[:1].upper()}{bare[1:]}?"
