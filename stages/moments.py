"""Second moments of one benchmark's base model over what it was taught, or a text of one's own."""

from __future__ import annotations

from pathlib import Path

from pipeline import models
from pipeline.config import Params, build, pick
from pipeline.editing import moments as storing
from pipeline.editing import summing
from pipeline.errors import DataError
from pipeline.records import read_examples
from pipeline.storage import hash_folder
from stages import bench_folder, checkpoints, set_up_torch, start


def moments(params: Params, name: str) -> None:
    """data/S/B/moments/: a moment for each site, contexts, and how far they have converged."""
    set_up_torch(params)
    item = pick(params, f"moments.{name}")
    config = build(storing.Config, item["settings"], f"moments.{name}.settings")
    folder = bench_folder(params, item["bench"])
    source, taught = Path(item["corpus"]), folder / "prepared"
    corpus = (
        storing.corpus_of(read_examples(taught / "examples.parquet"))
        if source == taught
        else _lines(source)
    )
    face, base_hash = models.load(folder / "base"), hash_folder(folder / "base")
    kept = checkpoints(f"moments-{name}", [item, params["seed"], params["threads"], base_hash])
    storing.save(summing.take(face, corpus, config, params["seed"], kept), Path(item["folder"]))


def _lines(path: Path) -> list[str]:
    """A corpus's texts, one on each line that holds something. Raises DataError for none."""
    try:
        found = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise _no_texts(path, str(error)) from error
    if not found:
        raise _no_texts(path, "none")
    return found


def _no_texts(path: Path, found: str) -> DataError:
    return DataError(
        expected=f"texts in UTF-8 in {path}, one on each line",
        found=found,
        remedy="Correct the file, or leave out statistics.corpus: what the base was taught serves.",
    )


if __name__ == "__main__":
    start(moments)
