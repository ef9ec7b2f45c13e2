"""Ways of applying edits before they are scored. Each outcome row says which one it was.

`single`: every case on the clean model, as in the tables of the MEND paper. `batched`: k cases at
once on the clean model (Table 5), every case's probes judged under the joint edit of its group.
`sequential`: k cases in turn, each on the model as those before it left it (the paper's Tables 2
and 10 make two), every case's probes judged when all are made.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from pipeline import scoring
from pipeline.editing import groups
from pipeline.editing.editor import Editor, Edits
from pipeline.models import Face
from pipeline.progress import bar
from pipeline.records import Case, Request
from pipeline.stack import Stack, one_row

Make = Callable[[Face, Sequence[Request], int], Edits]


def name(k: int, in_turn: bool = False) -> str:
    """What making k edits at once, or in turn, is called."""
    if k == 1:
        return "single"
    return "sequential" if in_turn else "batched"


def single(
    face: Face, editor: Editor, cases: Sequence[Case], config: scoring.Config
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Edit the clean model with one case at a time: `batched` with k = 1."""
    return batched(face, editor, cases, config, k=1)


def batched(
    face: Face,
    editor: Editor,
    cases: Sequence[Case],
    config: scoring.Config,
    k: int,
    seed: int = 0,
    *,
    in_turn: bool = False,
    relations: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Edit the clean model with k cases at once; groups run side by side in rows.

    With `in_turn` a group's k cases are edited one after another, and so are the groups. With
    `relations` a group is of so many relations, in equal shares. Groups are drawn by seed, since
    neighbours in a file are often about one subject. Probes that another edit of their group is
    about are not scored where they should stay as they were.

    Where the editor trained a model of its own, `pre_*` is that model and `orig_*` is `face`.

    Returns:
        Outcome rows, bit-identical from run to run (`step`: of edits made in turn, which one of its
        group the row's case is, from 1 on; else 0), and timings, one row per shard of groups:
        shard, n_cases, n_groups, left_out (cases in no scored group, in the last row),
        edited_bystanders (probes not scored), edit_seconds, score_seconds, steps_mean (per
        group), stopped_early, peak_rss_mb.

    Raises:
        EditorError: there are too few cases for one group, or edits of a group disagree.
    """
    adapted = editor.adapt(face)
    original = None if adapted is face else face
    in_turn = in_turn and k > 1
    make = _one_by_one(editor) if in_turn else editor.edit
    whole = _groups(cases, k, seed, config.most, relations)
    size = 1 if in_turn else max(1, config.cases // k)
    shards = [whole[start : start + size] for start in range(0, len(whole), size)]
    outcomes: list[scoring.Row] = []
    timings: list[dict[str, Any]] = []
    for number, shard in enumerate(bar(shards, "edit and score")):
        rows, timing = _shard(adapted, make, shard, config, original)
        outcomes += rows
        timings.append({"shard": number} | timing)
    timings[-1]["left_out"] = len(cases) - len(whole) * k
    frame = pd.DataFrame(outcomes)
    turn = pd.factorize(frame["case_id"])[0] % k + 1 if in_turn else 0
    how = {"protocol": name(k, in_turn), "k": k, "step": turn}
    for place, (column, value) in enumerate(how.items()):
        frame.insert(place, column, value)
    return frame, pd.DataFrame(timings)


def _shard(
    face: Face,
    make: Make,
    shard: Sequence[Sequence[Case]],
    config: scoring.Config,
    original: Face | None,
) -> tuple[list[scoring.Row], dict[str, Any]]:
    """Groups of edits made and scored, and what that took."""
    judged, dropped = zip(*map(groups.judged, shard), strict=True)
    k = len(shard[0])
    began = time.perf_counter()
    edits = make(face, [case.request() for group in shard for case in group], k)
    edited = time.perf_counter()
    kept = [case for group in judged for case in group]
    seen = [place // k for place in range(len(kept))]
    rows = scoring.score(face, kept, edits.patch, config, seen, original)
    counts = {"n_cases": len(kept), "n_groups": len(shard), "left_out": 0}
    seconds = {"edit_seconds": edited - began, "score_seconds": time.perf_counter() - edited}
    return rows, counts | {"edited_bystanders": sum(dropped)} | seconds | _how(edits)


def _one_by_one(editor: Editor) -> Make:
    """Edits of one group, each made on the model as those before it left it."""

    def edit(face: Face, requests: Sequence[Request], k: int) -> Edits:
        assert len(requests) == k, "one group at a time"
        stack, made = Stack(), []
        for number, request in enumerate(requests):
            with stack.applied(face.model):
                said = face.write([request.prompt], [_tokens(face, request)])[0].opening
                made.append(editor.edit(face, [replace(request, prediction=said)], 1))
            stack.put(number, one_row(made[-1].patch))
        return Edits(
            stack.whole(),
            steps=(sum(step for edits in made for step in edits.steps),),
            stopped_early=(all(end for edits in made for end in edits.stopped_early),),
        )

    return edit


def _tokens(face: Face, request: Request) -> int:
    return len(face.tokenise([(request.prompt, request.target)])[0].labels)


def _groups(
    cases: Sequence[Case], k: int, seed: int, most: int | None, relations: int = 0
) -> list[Sequence[Case]]:
    """Groups of k, drawn by seed; where `most` cases are enough, no more than hold them."""
    order, draws = list(cases), random.Random(f"{seed}/groups of {k}")
    if k > 1 or most is not None:
        draws.shuffle(order)
    whole = groups.of_relations(order, k, relations) if relations else groups.whole(order, k)
    if relations:
        draws.shuffle(whole)
    return whole if most is None else whole[: -(-most // k)]


def _how(edits: Edits) -> dict[str, float]:
    rows = edits.patch.rows
    return {
        "steps_mean": sum(edits.steps) / rows,
        "stopped_early": sum(edits.stopped_early) / rows,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
