"""One thin entry per DVC stage: `python -m stages fit zsre-mend`.

An entry reads its settings and inputs, calls the library, and saves. What a user got wrong ends it
with one message; everything else is a defect and keeps its traceback.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.config import Params, check_root, read_params
from pipeline.errors import ErrataError
from pipeline.ranges import check_record_ranges

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


def set_up_torch(params: Params) -> None:
    """As many threads as the record says, only algorithms that repeat, and no bars in logs."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(params["threads"])
    torch.use_deterministic_algorithms(mode=True)
    # With that, torch fills memory before it is written to, for code that reads it unwritten; a
    # tenth of the time of small models. `make twice` would show it: two runs would differ.
    torch.utils.deterministic.fill_uninitialized_memory = False
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
