"""Ways of applying edits before they are scored. Each outcome row says which one it was.

`single`: every case on the clean model, as in the tables of the MEND paper.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline import scoring
from pipeline.editor import Editor
from pipeline.models import Face
from pipeline.progress import bar
from pipeline.records import Case


def single(
    face: Face, editor: Editor, cases: Sequence[Case], config: scoring.Config
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Edit the clean model with one case at a time; cases run side by side in rows.

    Where the editor trained a model of its own, `pre_*` is that model and `orig_*` is `face`.

    Returns:
        Outcome rows, bit-identical from run to run, and timings, one row per shard of cases:
        shard, n_cases, edit_seconds, score_seconds, steps_mean, stopped_early, peak_rss_mb.
    """
    adapted = editor.adapt(face)
    original = None if adapted is face else face
    outcomes: list[scoring.Row] = []
    timings: list[dict[str, Any]] = []
    size = config.cases
    shards = [cases[start : start + size] for start in range(0, len(cases), size)]
    for number, shard in enumerate(bar(shards, "edit and score")):
        began = time.perf_counter()
        edits = editor.edit(adapted, [case.request() for case in shard])
        edited = time.perf_counter()
        outcomes += scoring.score(adapted, shard, edits.patch, config, original)
        timings.append(
            {
                "shard": number,
                "n_cases": len(shard),
                "edit_seconds": edited - began,
                "score_seconds": time.perf_counter() - edited,
                "steps_mean": sum(edits.steps) / len(shard),
                "stopped_early": sum(edits.stopped_early) / len(shard),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
        )
    frame = pd.DataFrame(outcomes)
    frame.insert(0, "protocol", "single")
    frame.insert(1, "k", 1)
    frame.insert(2, "step", 0)
    return frame, pd.DataFrame(timings)
