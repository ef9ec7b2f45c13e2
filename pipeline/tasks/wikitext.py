"""Wikitext: encyclopedic passages, for causal language models.

A case is the opening of a passage; its new continuation is sampled from a second language model by
the label stage. Rephrasings are the same opening with its first words cut off, as in MEND's code,
in whole words; and with its first sentence cut off, as in MEND's Table 8. Unrelated probes are
whole passages, whose every token counts. As in MEND, they come from text of their own: none of
them is ever edited, and none serves both training and validation.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.errors import DataError, SettingsError
from pipeline.passages import write_passage
from pipeline.records import Case, Example, Prepared, Probe, Split
from pipeline.tasks.drawing import check_sizes, pick, stream
from pipeline.tasks.source import Folder, Source
from pipeline.tasks.teaching import count
from pipeline.world import World


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is taught and what is edited.

    Attributes:
        passages: how many passages the base model is taught, at most.
        heldout: how many passages about other subjects (local: in other articles, which are held
            out whole) it is not taught; validation cases and the held-out perplexity come from
            these.
        locality: how many more passages serve training cases as unrelated text. The base model is
            not taught them, nor those that serve validation: both stand for text at large.
            Validation's are those of the held-out ones that no case takes.
        words: the least and the most words of a passage.
        prompt_words: the least and the most words of the opening that is edited.
    """

    passages: int = 1200
    heldout: int = 240
    locality: int = 240
    words: tuple[int, int] = (60, 120)
    prompt_words: tuple[int, int] = (40, 60)
    train_cases: int = 1000
    validation_cases: int = 200
    unrelated: int = 4

    def __post_init__(self) -> None:
        check_sizes(self)


@dataclass(frozen=True)
class Passage:
    """A text, what it is about (a subject or an article), and its number there."""

    about: str
    number: int
    text: str
    source: str


def prepare(source: Source, config: Config, seed: int) -> Prepared:
    """Examples and cases from a world or from WikiText's files.

    Raises:
        DataError: a file is missing or broken.
        SettingsError: the source has too few passages for the settings.
    """
    if isinstance(source, Folder):
        return _from_files(source, config, seed)
    return _from_world(source, config, seed)


def _from_world(world: World, config: Config, seed: int) -> Prepared:
    subjects = sorted({fact.subject for fact in world.facts})
    rng = stream(seed, "wikitext/subjects")
    rng.shuffle(subjects)
    # As many passages per subject in both parts: a sixth of the passages takes a sixth of the
    # subjects.
    total = config.passages + config.heldout
    cut = max(1, round(len(subjects) * config.heldout / total))
    held = _write(world, subjects[:cut], config.heldout, config, seed)
    taught = _write(world, subjects[cut:], config.passages + config.locality, config, seed)
    parts = Passages(taught[: config.passages], taught[config.passages :], held)
    return assemble(parts, config, seed, {"source": "world", "files": {}, "dropped": {}})


def _write(
    world: World, subjects: Sequence[str], total: int, config: Config, seed: int
) -> list[Passage]:
    """Passages about subjects in turn: the first of each, then the second of each, and so on."""
    passages = []
    for i in range(total):
        subject, number = subjects[i % len(subjects)], i // len(subjects)
        rng = stream(seed, "wikitext/passage", subject, number)
        text = write_passage(world, subject, config.words, rng)
        passages.append(Passage(subject, number, text, "world"))
    return passages


@dataclass(frozen=True)
class Passages:
    """What is taught and edited in training, what is unrelated there, and what is held out."""

    taught: Sequence[Passage]
    locality: Sequence[Passage]
    held: Sequence[Passage]


def assemble(parts: Passages, config: Config, seed: int, card: dict[str, Any]) -> Prepared:
    """Examples and cases: training cases come from taught passages, validation from held ones.

    Raises:
        SettingsError: there are too few passages for the cases, or none left to be unrelated.
    """
    taught, held = parts.taught, parts.held
    examples = (
        *(Example(prompt="", target=p.text, fact=p.about) for p in taught),
        *(Example(prompt="", target=p.text, fact=p.about, split="heldout") for p in held),
    )
    train = _edited(taught, config.train_cases, config, seed, "train")
    validation = _edited(held, config.validation_cases, config, seed, "validation")
    used = {passage.text for passage in (*train.values(), *validation.values())}
    far = [p for p in parts.locality if p.text not in used]
    texts = {passage.text for passage in far}
    far_held = [p for p in held if p.text not in used and p.text not in texts]
    cases = (
        *_cases(train, far, config, seed, "train"),
        *_cases(validation, far_held, config, seed, "validation"),
    )
    counts = count(
        examples,
        cases=len(cases),
        topics_taught=len({p.about for p in taught}),
        topics_heldout=len({p.about for p in held}),
        locality_train=len(far),
        locality_validation=len(far_held),
    )
    return Prepared(examples=examples, cases=cases, card={**card, "counts": counts})


def _edited(
    passages: Sequence[Passage], wanted: int, config: Config, seed: int, part: Split
) -> dict[str, Passage]:
    """The passages to edit, by their openings."""
    rng = stream(seed, "wikitext/cases", part)
    found: dict[str, Passage] = {}
    for passage in rng.sample(passages, len(passages)):
        if len(found) == wanted:
            return found
        words = passage.text.split()
        # A passage must go on after the opening, or there would be nothing to continue.
        if len(words) >= config.prompt_words[0] + 10:
            draw = stream(seed, "wikitext/case", passage.about, passage.number)
            length = min(draw.randint(*config.prompt_words), len(words) - 10)
            found.setdefault(" ".join(words[:length]), passage)
    if len(found) == wanted:
        return found
    raise SettingsError(
        expected=f"{wanted} {part} cases for wikitext",
        found=f"{len(found)} passages that are long enough and differ in their opening",
        remedy="Ask for fewer cases or more passages, or for shorter openings (prompt_words).",
    )


def _cases(
    edited: dict[str, Passage], far: Sequence[Passage], config: Config, seed: int, part: Split
) -> Iterator[Case]:
    for prompt, passage in edited.items():
        rng = stream(seed, "wikitext/probes", passage.about, passage.number)
        others = pick(far, config.unrelated, rng, partial(_elsewhere, passage))
        if config.unrelated and not others:
            raise SettingsError(
                expected=f"passages that no {part} case edits, as unrelated text for wikitext",
                found=f"none about anything but {passage.about}",
                remedy="Raise locality (train) or heldout (validation) in the data settings.",
            )
        yield Case(
            id=f"wikitext:{passage.about}:{passage.number}",
            prompt=prompt,
            subject=passage.about if passage.about in prompt else "",
            rephrases=_shorter(prompt.split(), rng),
            unrelated=tuple(Probe("", other.text) for other in others),
            source=passage.source,
            split=part,
        )


def _elsewhere(one: Passage, other: Passage) -> bool:
    return other.about != one.about


def _shorter(words: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """The opening without its first words: up to half of them, then its whole first sentence."""
    cut = rng.randint(1, len(words) // 2)
    by_words = " ".join(words[cut:])
    _, _, by_sentence = " ".join(words).partition(". ")
    texts = [by_words, *([by_sentence] if len(by_sentence.split()) >= 10 else [])]
    return tuple(dict.fromkeys(texts))


TEXTS = ("wikitext-2/test.txt", "wikitext-2/valid.txt")
_TITLE = re.compile(r"^ = ([^=].*[^=]|[^=]) = $")
_HEADING = re.compile(r"^ =.*= $")


def _from_files(folder: Folder, config: Config, seed: int) -> Prepared:
    dropped: Counter[str] = Counter()
    passages: dict[str, list[Passage]] = {}
    for name in TEXTS:
        for title, place, paragraphs in _articles(folder, name, dropped):
            about = title
            while about in passages:  # titles lose rare words to <unk>, and then repeat
                about += " (another)"
            texts = _pack(paragraphs, config.words)
            passages[about] = [Passage(about, i, t, place) for i, t in enumerate(texts)]
    titles = sorted(passages)
    stream(seed, "wikitext/articles").shuffle(titles)
    held = _whole_articles(passages, titles, config.heldout)
    locality = _whole_articles(passages, titles, config.locality)
    taught = [passage for title in titles for passage in passages[title]]
    dropped["passages beyond the number asked for"] += max(0, len(taught) - config.passages)
    files = dict(sorted(folder.hashes.items()))
    card = {"source": "files", "files": files, "dropped": dict(dropped)}
    return assemble(Passages(taught[: config.passages], locality, held), config, seed, card)


def _whole_articles(
    passages: dict[str, list[Passage]], titles: list[str], wanted: int
) -> list[Passage]:
    """The passages of the last titles, which are taken off, until there are as many as wanted."""
    found: list[Passage] = []
    while titles and len(found) < wanted:
        found += passages[titles.pop()]
    return found


def _articles(
    folder: Folder, name: str, dropped: Counter[str]
) -> Iterator[tuple[str, str, list[str]]]:
    """Each article's title, place and paragraphs, as written before it was split into words."""
    title, place, paragraphs = "", "", list[str]()
    for number, line in enumerate(folder.lines(name), start=1):
        if found := _TITLE.match(line):
            if title:
                yield title, place, paragraphs
            title, place, paragraphs = found[1], f"{name}, line {number}", []
        elif _HEADING.match(line):
            dropped["headings inside articles"] += 1
        elif line.strip():
            paragraphs.append(join_words(line))
    if not title:
        raise DataError(
            expected=f"articles that begin with a line ' = Title = ' in {name}",
            found="no such line",
            remedy="Restore the file from its publisher.",
        )
    yield title, place, paragraphs


def join_words(line: str) -> str:
    """Undo WikiText's spaces: `5 @,@ 000`, `guest @-@ starring` and those around punctuation.

    `<unk>` stays: what it stood for is lost.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", line.strip())
    text = re.sub(r"(\d) : (\d\d)\b", r"\1:\2", text)
    text = re.sub(r" ([,.;:!?)\]%]|'(?:s|t|re|ve|ll|m|d)\b)", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    return re.sub(r'" ([^"]*?) "', r'"\1"', text)


def _pack(paragraphs: Iterable[str], words: tuple[int, int]) -> list[str]:
    """All of an article's sentences in passages of at most words[1] words, in order.

    A passage ends once it has words[0] words and the next sentence would not fit; a sentence
    longer than a passage is cut. The last passage of an article can be shorter.
    """
    packed: list[list[str]] = [[]]
    for paragraph in paragraphs:
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z\"(<])", paragraph):
            rest = sentence.split()
            while rest:
                room = words[1] - len(packed[-1])
                if packed[-1] and len(rest) > room and len(packed[-1]) >= words[0]:
                    packed.append([])
                    room = words[1]
                packed[-1] += rest[:room]
                rest = rest[room:]
                if rest:
                    packed.append([])
    return [" ".join(passage) for passage in packed if passage]
