"""Prompts that edits should leave alone: a user's own, those of cases, or openings of no matter."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.editable.asking import answers, has_room
from pipeline.editable.given import table_of
from pipeline.editable.rows import json_rows
from pipeline.editable.texts import as_read, encodable, lines, read_text
from pipeline.errors import DataError
from pipeline.models import Face
from pipeline.records import Case, Probe

_LOG = logging.getLogger(__name__)
_MOST = 64  # probes taken from a file of cases
_TOKENS = 4  # of a model's own answer, where that is the target
_FORMS = (
    'Give a .txt of prompts, JSON lines {"prompt": ..., "target": ...}, or a parquet table of '
    "cases, in UTF-8."
)
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
        DataError: the file is missing, empty or broken; a broken line is named by its number.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        found = of_cases(table_of(path, _FORMS))
    else:
        text = read_text(path, "probes", _FORMS)
        if kind == ".txt":
            found = tuple(Probe(line.rstrip(), "") for _, line in lines(text))
        else:
            found = tuple(_probe(row, where) for where, row in json_rows(path, text, _FORMS))
    if not found:
        raise DataError(expected=f"probes in {path}", found="none", remedy=_FORMS)
    return found


def checked(probes: Sequence[Probe | Mapping[str, Any]]) -> tuple[Probe, ...]:
    """Probes, given as such or as mappings of their fields.

    Raises:
        DataError: one is none, or its prompt or target is not text.
    """
    if not isinstance(probes, Sequence) or isinstance(probes, str):
        raise DataError(expected="probes in a list", found=repr(probes)[:80], remedy=_FORMS)
    return tuple(
        _probe(vars(probe) if isinstance(probe, Probe) else probe, f"probe {number}")
        for number, probe in enumerate(probes, 1)
    )


def of_cases(cases: Sequence[Case]) -> tuple[Probe, ...]:
    """The unrelated examples of cases: what their edits should leave alone."""
    found = dict.fromkeys(probe for case in cases for probe in case.unrelated)
    if len(found) > _MOST:
        _LOG.info("The first %d of %d unrelated examples are probes.", _MOST, len(found))
    return tuple(found)[:_MOST]


def pairs(face: Face, probes: Sequence[Probe]) -> tuple[list[tuple[str, str]], list[str]]:
    """Prompts and targets as this model reads them, and why others are left out.

    Where a probe has no target, the model's own answer is it, if it has one.
    """
    kept, reasons = _readable(face, probes)
    open_ended = [prompt for prompt, target in kept if not target]
    said = dict(zip(open_ended, answers(face, open_ended, _TOKENS), strict=True))
    found = []
    for prompt, given in kept:
        pair = prompt, given or said[prompt]
        try:
            face.tokenise([pair])
        except DataError as error:  # it answered with nothing
            reasons.append(str(error))
            continue
        found.append(pair)
    return found, reasons


def _readable(face: Face, probes: Sequence[Probe]) -> tuple[list[tuple[str, str]], list[str]]:
    kept, reasons = [], []
    for probe in probes:
        pair = as_read(face, probe.prompt, probe.target)
        try:
            face.tokenise([pair if probe.target else (probe.prompt, _filler(face))])
        except DataError as error:
            reasons.append(str(error))
            continue
        if not probe.target and not has_room(face, probe.prompt):
            reasons.append(f"no room for an answer to {probe.prompt[:60]!r} in the context")
            continue
        kept.append(pair)
    return kept, reasons


def _filler(face: Face) -> str:
    return face.labels[0] if face.labels else " a"


def _probe(row: Any, where: str) -> Probe:
    if not isinstance(row, Mapping) or "prompt" not in row:
        raise DataError(expected=f"a probe in {where}", found=ascii(row)[:80], remedy=_FORMS)
    target = row.get("target", "")
    if isinstance(target, bool):  # JSON's true and false, for a classifier
        target = str(target).lower()
    for name, value in (("prompt", row["prompt"]), ("target", target)):
        if not isinstance(value, str):
            raise DataError(
                expected=f"text in the field {name!r} of {where}",
                found=repr(value)[:80],
                remedy="Put it in quotes, or leave a target out.",
            )
        encodable(value, f"the field {name!r} of {where}")
    return Probe(row["prompt"], target)
