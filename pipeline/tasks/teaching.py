"""Which wordings of a fact the base model is taught, and which are held out from it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from pipeline.records import Example, Probe
from pipeline.tasks.drawing import pick, stream
from pipeline.world import Fact


class Lessons:
    """The wordings of facts, dealt into taught ones and held-out ones, fact by fact.

    Every fact has its own deal, so that each pattern is taught with some subjects and held out
    with others: a base model knows the pattern, but not that fact in that pattern.
    """

    def __init__(
        self,
        texts: Mapping[str, Sequence[Probe]],
        taught: int,
        seed: int,
        bench: str,
        first_is_taught: bool = False,
        untaught: Mapping[str, Sequence[Probe]] = MappingProxyType({}),
        subjects: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Deal.

        Args:
            texts: for each fact's key, its wordings: prompts with the target that is true.
            taught: how many wordings of each fact are taught.
            first_is_taught: whether a fact's first wording is always among them (real sources,
                whose other wordings are derived from the first).
            untaught: the wordings of facts that the model is to be corrected with: it is taught
                none of them.
            subjects: what facts are about, as their wordings spell it, by key.
        """
        self._taught = taught
        self._seed, self._bench = seed, bench
        self._known, self._subjects = texts.keys(), subjects
        self._dealt: dict[str, tuple[Probe, ...]] = {}
        for key, probes in (*texts.items(), *untaught.items()):
            unique = list({probe.prompt: probe for probe in probes}.values())
            head = unique[:1] if first_is_taught else []
            tail = unique[len(head) :]
            stream(seed, bench, "deal", key).shuffle(tail)
            self._dealt[key] = (*head, *tail)

    def prompt(self, key: str) -> Probe:
        """The wording that stands for the fact where it is edited: one that is taught, if any."""
        return self._dealt[key][0]

    def rephrases(self, key: str) -> tuple[str, ...]:
        """All the fact's other wordings, taught or not, in random order."""
        others = [probe.prompt for probe in self._dealt[key][1:]]
        stream(self._seed, self._bench, "rephrases", key).shuffle(others)
        return tuple(others)

    def recall(self, key: str, rng: random.Random) -> Probe:
        """One of the fact's taught wordings."""
        assert key in self._known
        return rng.choice(self._dealt[key][: self._taught])

    def recall_all(self, facts: Iterable[Fact], rng: random.Random) -> tuple[Probe, ...]:
        """A taught wording of each fact."""
        return tuple(self.recall(fact.key, rng) for fact in facts)

    def examples(self, heldout: int) -> tuple[Example, ...]:
        """Every taught wording, then up to `heldout` of those held out."""
        taught: list[Example] = []
        rest: list[Example] = []
        for key in self._known:
            probes = self._dealt[key]
            about = self._subjects.get(key, "")
            taught.extend(example(key, about, probe, "train") for probe in probes[: self._taught])
            rest.extend(example(key, about, probe, "heldout") for probe in probes[self._taught :])
        rng = stream(self._seed, self._bench, "heldout")
        return (*taught, *pick(rest, heldout, rng, lambda _: True))


def example(key: str, subject: str, probe: Probe, split: Literal["train", "heldout"]) -> Example:
    """A wording to teach or to hold out; its subject is named where it spells it so."""
    named = subject if subject in probe.prompt else ""
    return Example(prompt=probe.prompt, target=probe.target, fact=key, split=split, subject=named)


def count(examples: Sequence[Example], **more: int) -> dict[str, int]:
    """The counts that every card states, and more."""
    taught = [example for example in examples if example.split == "train"]
    return {
        "facts": len({example.fact for example in taught}),
        "taught": len(taught),
        "heldout": len(examples) - len(taught),
        **more,
    }
