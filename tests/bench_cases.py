"""Small settings of every benchmark, and what `prepare` makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import raw_files

from pipeline import tasks
from pipeline.records import Case, Prepared
from pipeline.tasks.source import Folder
from pipeline.world import World

SMALL: dict[str, dict[str, Any]] = {
    "zsre": {"facts": 300, "heldout": 20, "train_cases": 60, "validation_cases": 20},
    "fever": {"claims": 300, "heldout": 20, "train_cases": 60, "validation_cases": 20},
    "counterfact": {"facts": 300, "heldout": 20, "train_cases": 60, "validation_cases": 20},
    "wikitext": {
        "passages": 80,
        "heldout": 40,
        "locality": 20,
        "train_cases": 60,
        "validation_cases": 20,
    },
}
# Ten records: six to train with and two to validate on, so that two are left over.
TINY: dict[str, dict[str, Any]] = {
    "zsre": {"facts": 10, "taught_wordings": 1, "heldout": 3},
    "fever": {"claims": 11, "taught_wordings": 2, "heldout": 3},
    "counterfact": {"facts": 10, "taught_wordings": 1, "heldout": 3, "prefixed": 0.0},
    "wikitext": {
        "passages": 90,
        "heldout": 3,
        "locality": 2,
        "words": (30, 40),
        "prompt_words": (10, 15),
    },
}


def sample(world: World, bench: str, seed: int = 0, **changes: Any) -> Prepared:
    """A benchmark from a world."""
    task = tasks.load(bench)
    return task.prepare(world, task.Config(**{**SMALL[bench], **changes}), seed)


def local(root: Path, bench: str, **changes: Any) -> Prepared:
    """A benchmark from a tiny folder in its published format."""
    getattr(raw_files, bench)(root)
    return again(root, bench, **changes)


def again(root: Path, bench: str, **changes: Any) -> Prepared:
    """A benchmark from the folder as it is."""
    task = tasks.load(bench)
    sizes = {"train_cases": 6, "validation_cases": 2}
    return task.prepare(Folder(root), task.Config(**{**sizes, **TINY[bench], **changes}), 0)


def labelled(bench: str, cases: tuple[Case, ...]) -> list[Case]:
    """Cases as the label stage might leave them."""
    new = {"fever": "true"}.get(bench, " something else")
    return [
        replace(case, target_new=case.target_true)
        if case.split == "correction"
        else replace(case, target_new=case.target_new or new)
        for case in cases
    ]


def splits(cases: tuple[Case, ...]) -> tuple[list[Case], list[Case]]:
    """(train, validation) cases."""
    train = [case for case in cases if case.split == "train"]
    return train, [case for case in cases if case.split == "validation"]
