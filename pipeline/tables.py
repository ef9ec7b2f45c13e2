"""Data frames on disk: whole or absent, and refused by name when broken."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from pipeline.errors import DataError
from pipeline.storage import write_aside


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write parquet whole or not at all. Raises StorageError when the disk refuses."""
    write_aside(path, lambda part: frame.to_parquet(part, index=False))


def read_frame(path: Path) -> pd.DataFrame:
    """Read parquet. Raises DataError when the file is missing or truncated."""
    try:
        return pd.read_parquet(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            expected=f"a whole parquet file at {path}",
            found=str(error),
            remedy="It is missing or truncated: run the stage that makes it, dvc repro.",
        ) from error
