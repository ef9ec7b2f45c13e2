"""What is asked of a model about a case: the edit, its rephrasings, and what must not change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.records import Case


@dataclass(frozen=True)
class Asked:
    """One probe of one case: what is asked, what should follow, and which edit it sees."""

    case: int
    edit: int  # row of the patch
    kind: str
    index: int
    prompt: str
    target: str
    rival: str  # the text whose likelihood is compared with the target's; "" for none

    @property
    def passage(self) -> bool:
        """A text without a question: nothing to generate, perplexity over all of it."""
        return not self.prompt


def questions(case: Case, number: int, edit: int) -> Iterator[Asked]:
    """Every probe of a case, the edit itself first.

    The new answer competes with the true one; where it is the true one, with what the model said.
    """
    new = case.target_new
    old = case.prediction if case.split == "correction" else case.target_true
    yield Asked(number, edit, "edit", 0, case.prompt, new, old)
    for index, prompt in enumerate(case.rephrases):
        yield Asked(number, edit, "rephrase", index, prompt, new, old)
    for kind, probes, rival in (
        ("neighbour", case.neighbours, new),
        ("hard_neighbour", case.hard_neighbours, ""),
        ("unrelated", case.unrelated, ""),
        ("implied", case.implied, ""),
    ):
        for index, probe in enumerate(probes):
            yield Asked(number, edit, kind, index, probe.prompt, probe.target, rival)
