"""One thin entry per DVC stage: `python -m stages.fit zsre-mend`.

An entry reads its settings and inputs, calls the library, and saves. What a user got wrong ends it
with one message; everything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.config import Params, read_params
from pipeline.errors import ErrataError

DATA = Path("data")
SAMPLER = Path("base", "sampler")  # in the base model's folder, where a benchmark has one


def start(stage: Callable[..., None]) -> None:
    """Run a stage on the record and the command line's words."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        stage(read_params(), *sys.argv[1:])
    except ErrataError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def bench_folder(params: Params, bench: str) -> Path:
    """Where a benchmark's data, base model and editors lie."""
    return DATA / str(params["suite"]) / bench


def use_threads(params: Params) -> None:
    """Let torch use as many threads as the record says, and only algorithms that repeat."""
    import torch

    torch.set_num_threads(params["threads"])
    torch.use_deterministic_algorithms(mode=True)
