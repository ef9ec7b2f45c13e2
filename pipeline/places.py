"""What a record reads from outside the project: raw data, base models, a text for moments."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import Params
from pipeline.errors import SettingsError

_WORLD = "pipeline/world.py"


def source(values: Mapping[str, Any]) -> str:
    """What `prepare` reads: the sample world's code, or the folder that the user named."""
    raw = values["raw"]
    if values["world"] is not None:
        if raw is not None:
            raise SettingsError(
                expected=f"no folder of raw data for suite={values['suite']}",
                found=f"raw={raw}",
                remedy="It makes its own data. For files of your own: suite=local.",
            )
        return _WORLD
    if not isinstance(raw, str):
        raise SettingsError(
            expected=f"raw to be the folder with the data of suite={values['suite']}",
            found=repr(raw),
            remedy="Give an absolute path: dvc exp run -S suite=local -S raw=/path/to/data.",
        )
    _refuse_relative("raw", raw)
    if not Path(raw).is_dir():
        raise SettingsError(
            expected="raw to be a folder",
            found=f"no folder {raw}",
            remedy="Give the folder with the published files, as an absolute path.",
        )
    return raw


def bases(values: Mapping[str, Any], benches: Sequence[str]) -> Params:
    """The folder that each benchmark's base model is copied from, so that DVC sees it change."""
    found = {}
    for bench in benches:
        source = values["benches"][bench]["base"].get("source")
        # Else a folder that the stage needs anyway, since DVC has no optional dependencies.
        folder = isinstance(source, str) and Path(source).is_dir()
        found[bench] = {"source": source if folder else f"data/{values['suite']}/{bench}/prepared"}
    return found


def refuse_lost(values: Mapping[str, Any], benches: Sequence[str]) -> None:
    """Raises SettingsError for a corpus or a base model that is not there, or will not be."""
    corpus = values.get("statistics", {}).get("corpus")
    if isinstance(corpus, str):
        _refuse_relative("statistics.corpus", corpus)
        _refuse_missing("statistics.corpus", corpus)
    for bench in benches:
        where = f"benches.{bench}.base.source"
        source = values["benches"][bench]["base"].get("source")
        if not isinstance(source, str):
            continue
        path = Path(source)
        if path.exists():
            _refuse_relative(where, source)
        elif path.is_absolute() or source.startswith((".", "~")):  # no name on a hub
            _refuse_missing(where, source)


def _refuse_missing(where: str, place: str) -> None:
    if not Path(place).exists():
        raise SettingsError(
            expected=f"{where} to be there",
            found=f"nothing at {place}",
            remedy="Correct the path; give it from / on.",
        )


def _refuse_relative(where: str, place: str) -> None:
    """A queued experiment works in a temporary copy of the project: no relative path leads there.

    Composing is the last moment at which the command line is known.
    """
    if not Path(place).is_absolute() and {"--queue", "--temp"} & set(sys.argv):
        raise SettingsError(
            expected=f"{where} to be an absolute path in a queued experiment",
            found=f"{where}={place}",
            remedy=f"Give {Path(place).resolve()}: queued experiments work in a temporary folder.",
        )
