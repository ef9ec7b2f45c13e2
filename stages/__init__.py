"""One thin entry per DVC stage: `python -m stages fit zsre-mend`.

An entry reads its settings and inputs, calls the library, and saves. What a user got wrong ends it
with one message; everything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.config import Params, check_root, project_root, read_params
from pipeline.errors import ErrataError
from pipeline.ranges import check_record_ranges
from pipeline.storage import hash_file

DATA = Path("data")
SAMPLER = Path("base", "sampler")  # in the base model's folder, where a benchmark has one


def start(stage: Callable[..., None]) -> None:
    """Run a stage on the record and the command line's words."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        params = read_params()
        check_root(params)
        check_record_ranges(params)
        stage(params, *sys.argv[1:])
    except ErrataError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def bench_folder(params: Params, bench: str) -> Path:
    """Where a benchmark's data, base model and editors lie."""
    return DATA / str(params["suite"]) / bench


def checkpoints(name: str, depends: Sequence[object]) -> Path:
    """Where interrupted work resumes from, under a name that stands for all it depends on.

    DVC empties a stage's outputs before the stage runs, and a queued experiment's folder goes with
    it; so this lies outside both.

    Args:
        depends: settings and hashes, as JSON can hold them; the library's code is added.
    """
    code = [hash_file(path) for path in sorted(Path("pipeline").rglob("*.py"))]
    digest = hashlib.sha256(json.dumps([*depends, *code], sort_keys=True).encode()).hexdigest()
    return project_root() / ".errata" / "checkpoints" / f"{name}-{digest[:16]}"


def set_up_torch(params: Params) -> None:
    """As many threads as the record says, only algorithms that repeat, and no bars in logs."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(params["threads"])
    torch.use_deterministic_algorithms(mode=True)
    # With that, torch also fills new memory, in case code reads it before it is written to: a tenth
    # of a small model's time. Such code would show: the runs of `make twice` would differ.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
