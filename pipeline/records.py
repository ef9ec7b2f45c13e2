"""The one schema that every benchmark is brought to: facts taught, and cases to edit.

An `Example` is text a base model learns from. A `Case` is one edit with all the probes that show
what the edit did. Both live in parquet; a field that a benchmark lacks is empty, never missing.

Text contract: `prompt + target` is the exact text a causal model reads, so a target carries its own
leading space where the text needs one (`"Paris is the capital of"`, `" France"`). Encoder-decoder
models read the prompt and write the target; classifiers read the prompt, and the target is one of
`LABELS`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.storage import write_aside

Split = Literal["train", "validation", "correction"]
LABELS = ("false", "true")  # a classifier's targets, in the order of its two logits


@dataclass(frozen=True)
class Probe:
    """A prompt and the text that should follow it."""

    prompt: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A text that a base model is taught, or is held out to show how far it generalises.

    `fact` groups the wordings of one fact; `split` is "train" or "heldout". A passage has an
    empty prompt. `subject` is what the fact is about, "" where that is not known.
    """

    prompt: str
    target: str
    fact: str
    split: Literal["train", "heldout"] = "train"
    subject: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that an editor may know of one edit.

    `prediction` is what the base model says now; KE conditions on it, ROME looks for `subject`.
    `relation` is what of the subject the edit is about, where that has a name: two edits of one
    subject and relation contradict each other in whatever words they come.
    """

    prompt: str
    target: str
    subject: str = ""
    prediction: str = ""
    relation: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One edit, `prompt -> target_new`, and the probes around it.

    Attributes:
        id: unique within a benchmark and stable under its settings.
        target_new: what the edited model should say. Filled by the label stage where the
            benchmark's labels come from a model.
        target_true: what is true in the source, and what the base model was taught ("" if open).
        answers: every accepted true answer.
        prediction: what the base model says before the edit (label stage).
        rephrases: other wordings of `prompt` with the same meaning.
        neighbours: same relation, other subjects, with their own true targets.
        hard_neighbours: same subject and another relation, or a subject close by name.
        unrelated: examples of the same benchmark with nothing in common: MEND's locality.
        implied: what must follow from the edit, with the target that would then be right.
        generation_prompts: openings about the subject, for free text.
        references: texts that a consistent generation should resemble.
        source: where the case comes from (file and line, or "world").
        split: "train" cases fit editors and choose settings; "validation" cases are only scored,
            and so are "correction" cases: facts that the base model was not taught and gets
            wrong, edited to the truth.
    """

    id: str
    prompt: str
    target_new: str = ""
    target_true: str = ""
    answers: tuple[str, ...] = ()
    prediction: str = ""
    subject: str = ""
    relation: str = ""
    rephrases: tuple[str, ...] = ()
    neighbours: tuple[Probe, ...] = ()
    hard_neighbours: tuple[Probe, ...] = ()
    unrelated: tuple[Probe, ...] = ()
    implied: tuple[Probe, ...] = ()
    generation_prompts: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    source: str = ""
    split: Split = "train"

    def request(self) -> Request:
        """The edit without its probes: editors never see how they will be judged."""
        return Request(
            prompt=self.prompt,
            target=self.target_new,
            subject=self.subject,
            prediction=self.prediction,
            relation=self.relation,
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a benchmark makes of its raw source.

    `known` are facts that the base model is taught and no editor is scored on: for causal tracing.
    `card` counts what was kept and why the rest was dropped, and hashes the files it came from:
    {"source": str, "files": {name: sha256}, "counts": {...}, "dropped": {reason: n}}.
    """

    examples: tuple[Example, ...]
    cases: tuple[Case, ...]
    known: tuple[Case, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)


_PROBES = pa.list_(pa.struct([("prompt", pa.string()), ("target", pa.string())]))
_TEXTS = pa.list_(pa.string())
_PROBE_FIELDS = ("neighbours", "hard_neighbours", "unrelated", "implied")
_TEXT_FIELDS = ("answers", "rephrases", "generation_prompts", "references")


def _case_type(name: str) -> pa.DataType:
    if name in _PROBE_FIELDS:
        return _PROBES
    return _TEXTS if name in _TEXT_FIELDS else pa.string()


CASE_SCHEMA = pa.schema([(f.name, _case_type(f.name)) for f in fields(Case)])
EXAMPLE_SCHEMA = pa.schema([(f.name, pa.string()) for f in fields(Example)])


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Write cases whole or not at all. Raises StorageError when the disk refuses."""
    table = pa.Table.from_pylist([asdict(case) for case in cases], schema=CASE_SCHEMA)
    write_aside(path, lambda part: pq.write_table(table, part))


def read_cases(path: Path, split: Split | None = None) -> list[Case]:
    """Read cases, all or one split. Raises DataError when the file is missing or not cases."""
    rows = _read(path, CASE_SCHEMA)
    cases = [_case(row) for row in rows]
    return [case for case in cases if split is None or case.split == split]


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write examples whole or not at all. Raises StorageError when the disk refuses."""
    table = pa.Table.from_pylist([asdict(example) for example in examples], schema=EXAMPLE_SCHEMA)
    write_aside(path, lambda part: pq.write_table(table, part))


def read_examples(path: Path) -> list[Example]:
    """Read examples. Raises DataError when the file is missing or not examples."""
    return [Example(**row) for row in _read(path, EXAMPLE_SCHEMA)]


def hash_cases(cases: Sequence[Case]) -> str:
    """SHA-256 of a list of cases, order included: the identity of what an editor was scored on."""
    digest = hashlib.sha256()
    for case in cases:
        digest.update(json.dumps(asdict(case), sort_keys=True).encode())
    return digest.hexdigest()


def normalise(text: str) -> str:
    """What two texts have in common when they differ in case and spaces alone."""
    return " ".join(text.casefold().split())


def is_true(case: Case, answer: str) -> bool:
    """Whether an answer to a case's prompt is one of the true ones, but for case and spaces."""
    return normalise(answer) in map(normalise, (case.target_true, *case.answers))


def _case(row: dict[str, Any]) -> Case:
    for name in _PROBE_FIELDS:
        row[name] = tuple(Probe(**probe) for probe in row[name])
    for name in _TEXT_FIELDS:
        row[name] = tuple(row[name])
    return Case(**row)


def _read(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(
            expected=f"a table at {path}",
            found="no such file",
            remedy="Name one that is there; what a stage makes comes by dvc repro.",
        )
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            expected=f"a whole parquet file at {path}",
            found=str(error),
            remedy="It is truncated or not parquet: restore it, or let its stage make it again.",
        ) from error
    if table.schema.names != schema.names:
        raise DataError(
            expected=f"columns {', '.join(schema.names)} in {path}",
            found=", ".join(table.schema.names),
            remedy="It holds something else, or is of another version: name another, or dvc repro.",
        )
    return list(table.to_pylist())
