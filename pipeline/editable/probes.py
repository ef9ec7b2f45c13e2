"""Prompts that edits should leave alone: a user's own, those of cases, or openings of no matter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.editable.asking import answers, has_room
from pipeline.errors import DataError
from pipeline.models import Face
from pipeline.records import Case, Probe, read_cases

_MOST = 64  # probes taken from a file of cases
_TOKENS = 4  # of a model's own answer, where that is the target
# Openings of no particular matter, for models whose users give no probes of their own.
OPENINGS = (
    "The weather in the north is",
    "Most people in the village work in",
    "The train left the station at",
    "A good soup begins with",
    "The second chapter of the book",
    "In the early morning the market",
    "The children were asked to",
    "Water boils when",
    "The committee decided that",
    "Her brother has lived in",
    "The road over the mountain is",
    "After the war the company",
    "The largest room of the museum",
    "Every summer the river",
    "The letter was written by",
    "Scientists have found that",
)


def read_probes(path: Path) -> tuple[Probe, ...]:
    """Probes of a file: lines of text, JSON lines with `prompt` and `target`, or a table of cases.

    Raises:
        DataError: the file is missing or broken.
    """
    if path.suffix == ".parquet":
        return of_cases(read_cases(path))
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if path.suffix == ".txt":
            return tuple(Probe(line.rstrip(), "") for line in lines)
        found = [json.loads(line) for line in lines]
        return tuple(Probe(row["prompt"], row.get("target", "")) for row in found)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            expected=f"probes in {path}",
            found=repr(error),
            remedy='Give a .txt of prompts, JSON lines {"prompt": ..., "target": ...}, or a '
            "parquet table of cases.",
        ) from error


def of_cases(cases: Sequence[Case]) -> tuple[Probe, ...]:
    """The unrelated examples of cases: what their edits should leave alone."""
    found = dict.fromkeys(probe for case in cases for probe in case.unrelated)
    return tuple(found)[:_MOST]


def readable(face: Face, probes: Sequence[Probe]) -> list[Probe]:
    """Probes that this model can read; the rest is left out."""
    kept = []
    for probe in probes:
        try:
            face.tokenise([(probe.prompt, probe.target or _filler(face))])
            if not probe.target and not has_room(face, probe.prompt):
                continue
        except DataError:
            continue
        kept.append(probe)
    return kept


def targets(face: Face, probes: Sequence[Probe]) -> list[tuple[str, str]]:
    """Prompt and target; where there is none, the model's own answer, if it has one."""
    open_ended = [probe.prompt for probe in probes if not probe.target]
    said = dict(zip(open_ended, answers(face, open_ended, _TOKENS), strict=True))
    pairs = []
    for probe in probes:
        target = probe.target or said[probe.prompt]
        try:
            face.tokenise([(probe.prompt, target)])
        except DataError:  # it answered with nothing
            continue
        pairs.append((probe.prompt, target))
    return pairs


def _filler(face: Face) -> str:
    return "true" if face.kind == "classifier" else " a"
