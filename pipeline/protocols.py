"""Ways of applying edits before they are scored. Each outcome row says which one it was.

`single`: every case on the clean model, as in the tables of the MEND paper. `batched`: k cases at
once on the clean model (Table 5), every case's probes judged under the joint edit of its group.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline import scoring
from pipeline.editing import groups
from pipeline.editing.editor import Editor, Edits
from pipeline.models import Face
from pipeline.progress import bar
from pipeline.records import Case


def name(k: int) -> str:
    """What editing the clean model with k cases at once is called."""
    return "single" if k == 1 else "batched"


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
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Edit the clean model with k cases at once; groups run side by side in rows.

    Groups are drawn by seed, since neighbours in a file are often about one subject. Probes that
    another edit of their group is about are not scored where they should stay as they were.

    Where the editor trained a model of its own, `pre_*` is that model and `orig_*` is `face`.

    Returns:
        Outcome rows, bit-identical from run to run, and timings, one row per shard of groups:
        shard, n_cases, n_groups, left_out (cases in no scored group, in the last row),
        edited_bystanders (probes not scored), edit_seconds, score_seconds, steps_mean (per
        group), stopped_early, peak_rss_mb.

    Raises:
        EditorError: there are fewer than k cases, or edits of one group contradict each other.
    """
    adapted = editor.adapt(face)
    original = None if adapted is face else face
    outcomes: list[scoring.Row] = []
    timings: list[dict[str, Any]] = []
    whole = _groups(cases, k, seed, config.most)
    per_shard = max(1, config.cases // k)
    shards = [whole[start : start + per_shard] for start in range(0, len(whole), per_shard)]
    for number, shard in enumerate(bar(shards, "edit and score")):
        judged, dropped = zip(*map(groups.judged, shard), strict=True)
        began = time.perf_counter()
        edits = editor.edit(adapted, [case.request() for group in shard for case in group], k)
        edited = time.perf_counter()
        kept = [case for group in judged for case in group]
        rows = [place // k for place in range(len(kept))]
        outcomes += scoring.score(adapted, kept, edits.patch, config, rows, original)
        seconds = {
            "edit_seconds": edited - began,
            "score_seconds": time.perf_counter() - edited,
        }
        counts = {"shard": number, "n_cases": len(kept), "n_groups": len(shard), "left_out": 0}
        timings.append(counts | {"edited_bystanders": sum(dropped)} | seconds | _how(edits))
    timings[-1]["left_out"] = len(cases) - len(whole) * k
    frame = pd.DataFrame(outcomes)
    for place, (column, value) in enumerate({"protocol": name(k), "k": k, "step": 0}.items()):
        frame.insert(place, column, value)
    return frame, pd.DataFrame(timings)


def _groups(cases: Sequence[Case], k: int, seed: int, most: int | None) -> list[Sequence[Case]]:
    """Groups of k, drawn by seed; where `most` cases are enough, no more than hold them."""
    order = list(cases)
    if k > 1 or most is not None:
        random.Random(f"{seed}/groups of {k}").shuffle(order)
    whole = groups.whole(order, k)
    return whole if most is None else whole[: -(-most // k)]


def _how(edits: Edits) -> dict[str, float]:
    rows = edits.patch.rows
    return {
        "steps_mean": sum(edits.steps) / rows,
        "stopped_early": sum(edits.stopped_early) / rows,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
