"""What the runs of a record left on disk, with the identity of everything that it came from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Params, flatten, read_params
from pipeline.metrics import Summary, summarise
from pipeline.storage import hash_file, hash_folder
from pipeline.tables import read_frame


@dataclass(frozen=True, kw_only=True)
class Result:
    """One benchmark and editor, evaluated.

    Attributes:
        run: its name in the record, "zsre-mend" or "zsre-mend-no_norm".
        variant: what sets it apart from the editor as it is; "" for nothing.
        protocol, k: how it edits, and how many edits it makes at once.
        settings: all settings that it depends on, by dotted path.
        outcomes_hash: SHA-256 of its outcome table, which identifies it.
        digests: of the folders that it came from: DVC's hash, or SHA-256 where DVC has none.
        curve: the learning curve's file; None where nothing was learned.
        commit, experiment: of git and of DVC; "" outside either.
    """

    run: str
    bench: str
    alg: str
    variant: str
    protocol: str
    k: int
    suite: str
    study: str
    settings: Mapping[str, Any]
    metrics: Summary
    outcomes: Path
    outcomes_hash: str
    digests: Mapping[str, str]
    curve: Path | None
    commit: str
    experiment: str


def results_folder(root: Path, params: Params) -> Path:
    """Where the outcome tables of a study lie."""
    return root / "data" / str(params["suite"]) / str(params["study"])


def report_folder(root: Path, params: Params) -> Path:
    """Where the report of a study lies."""
    return root / "reports" / str(params["suite"]) / str(params["study"])


def collect(root: Path, params: Params) -> list[Result]:
    """Every run that the record names.

    Raises:
        DataError: one of them has no whole outcome table.
    """
    locked = locked_hashes(root)
    commit = _git_commit(root)
    return [_result(root, params, run, locked, commit) for run in params["runs"]]


def locked_hashes(root: Path) -> dict[str, str]:
    """DVC's hash of every output in its lock file, by path."""
    path = root / "dvc.lock"
    if not path.is_file():
        return {}
    stages = read_params(path).get("stages", {})
    outs = (out for stage in stages.values() for out in stage.get("outs", []))
    return {out["path"]: str(out["md5"]) for out in outs}


def _result(root: Path, params: Params, run: str, locked: Mapping[str, str], commit: str) -> Result:
    item = params["runs"][run]
    bench, alg = item["bench"], item["alg"]
    folder = results_folder(root, params) / run
    outcomes = folder / "outcomes.parquet"
    summary = summarise(
        read_frame(outcomes), read_frame(folder / "timings.parquet"), params["seed"]
    )
    curve = root / item["editor"] / "curve.parquet"
    return Result(
        run=run,
        bench=bench,
        alg=alg,
        variant=item["variant"],
        protocol=item["protocol"],
        k=item["k"],
        suite=params["suite"],
        study=params["study"],
        settings=_settings(params, run),
        metrics=summary,
        outcomes=outcomes,
        outcomes_hash=hash_file(outcomes),
        digests=_digests(root, params, run, locked),
        curve=curve if curve.is_file() else None,
        commit=commit,
        experiment=os.environ.get("DVC_EXP_NAME", ""),
    )


def _settings(params: Params, run: str) -> dict[str, Any]:
    item = params["runs"][run]
    return flatten(
        {
            "seed": params["seed"],
            "threads": params["threads"],
            "world": params["world"],
            "bench": params["benches"][item["bench"]],
            "editor": params["settings"][item["settings"]],
            **{key: item[key] for key in ("variant", "protocol", "k", "relations")},
            **_statistics(params, run),
            "evaluate": params["evaluate"],
        }
    )


def _statistics(params: Params, run: str) -> dict[str, Any]:
    """What second moments were taken of and how, where the run reads them."""
    item = params["runs"][run]
    if item["moments"] not in [taken["folder"] for taken in params["moments"].values()]:
        return {}
    taken = params["moments"][item["bench"]]
    return {"statistics": {"corpus": taken["corpus"], **taken["settings"]}}


def _digests(root: Path, params: Params, run: str, locked: Mapping[str, str]) -> dict[str, str]:
    item = params["runs"][run]
    below = f"data/{params['suite']}/{item['bench']}"
    paths = {"cases": f"{below}/labelled", "base": f"{below}/base"}
    if item["fit"]:
        paths["editor"] = item["editor"]
    if _statistics(params, run):
        paths["moments"] = item["moments"]
    return {
        name: locked.get(path) or f"sha256:{hash_folder(root / path)}"
        for name, path in paths.items()
    }


def _git_commit(root: Path) -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 else ""
