"""The benchmarks: one module each, from a raw source to examples and cases of the one schema."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from pipeline.errors import SettingsError, near_misses
from pipeline.records import Case, Prepared
from pipeline.tasks.source import Folder, Source, open_source

__all__ = ["NAMES", "Folder", "Source", "Task", "complete", "load", "open_source"]

NAMES = ("counterfact", "fever", "wikitext", "zsre")


class Task(Protocol):
    """What a benchmark's module offers: its settings, and how they and a source make cases."""

    Config: type[Any]

    def prepare(self, source: Source, config: Any, seed: int) -> Prepared:
        """Examples to teach and cases to edit. Raises DataError where the source is broken."""
        ...


def load(bench: str) -> Task:
    """The module of a benchmark. Raises SettingsError, with the near misses, if there is none."""
    if bench not in NAMES:
        raise SettingsError(
            expected="the name of a benchmark",
            found=repr(bench),
            remedy=near_misses(bench, NAMES),
        )
    return cast(Task, importlib.import_module(f"pipeline.tasks.{bench}"))


def complete(bench: str, source: Source, case: Case, seed: int) -> Case:
    """Add what a labelled case's new answer implies, where the source can tell (sample zsRE)."""
    if bench != "zsre":
        return case
    # By name: an import here would make every benchmark's stages depend on zsRE's module.
    completed: Case = cast(Any, load(bench)).complete(source, case, seed)
    return completed
