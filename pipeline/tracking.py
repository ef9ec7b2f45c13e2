"""MLflow: one run per benchmark and editor, in one database. Nothing else imports mlflow.

Results live on disk; MLflow holds a copy to browse. So a database that cannot be reached costs a
warning, never a result, and `errata mlflow` sends what it missed. A result is known by the hashes
of its outcome table and of its settings: however often it is restored from the cache or sent again,
it is logged once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import project_root
from pipeline.metrics import plain
from pipeline.results import Result
from pipeline.tables import read_frame

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_LONGEST = 6000  # characters of a parameter's value; MLflow cuts what is longer without a word
_PARAMS_PER_CALL, _METRICS_PER_CALL = 100, 1000
_LOG = logging.getLogger(__name__)


def home() -> Path:
    """The folder of the database and of the files that runs carry, for queued experiments too."""
    return project_root() / "mlflow"


def database() -> str:
    """Where runs are logged: MLFLOW_TRACKING_URI where it is set, or a database of the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def log(results: Sequence[Result]) -> int | None:
    """Log the results that are not there yet.

    Returns:
        How many were new, or None when MLflow cannot be reached, which a warning says.
    """
    # Set before mlflow is imported, which reads them once: nothing is sent to anybody, and a
    # server that is down is given up in seconds.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for name in ("alembic", "mlflow.store.db.utils"):  # a line for each plugin and migration
        logging.getLogger(name).setLevel(logging.WARNING)
    from alembic.util.exc import CommandError
    from filelock import FileLock
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: of a database whose driver is not installed.
    unreachable = (
        MlflowException,
        SQLAlchemyError,
        CommandError,
        sqlite3.Error,
        OSError,
        ImportError,
    )
    try:
        home().mkdir(parents=True, exist_ok=True)
        # Processes that make the tables of a fresh database together all fail; and of two that
        # find a result missing, one must log it.
        with FileLock(home() / ".lock", timeout=600):
            _refuse_broken(database())
            client = _client()
            return sum(_log_new(client, result) for result in results)
    except unreachable as error:
        _LOG.warning(
            "MLflow at %s cannot be written: %s. The results are on disk; once it can, "
            "`errata mlflow` sends them.",
            database(),
            str(error).splitlines()[0] if str(error) else type(error).__name__,
        )
        return None


def _refuse_broken(uri: str) -> None:
    """Open a SQLite file before MLflow does, which tries for minutes."""
    scheme, _, path = uri.partition(":///")
    if scheme == "sqlite":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()


def _client() -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=database())


def _log_new(client: MlflowClient, result: Result) -> bool:
    experiment = _experiment(client, f"{result.suite}-{result.study}")
    key = {"outcomes_hash": result.outcomes_hash, "settings_hash": _digest(result.settings)}
    same = " and ".join(f"tags.{name} = '{value}'" for name, value in key.items())
    if client.search_runs([experiment], same, max_results=1):
        return False
    tags = {
        "bench": result.bench,
        "alg": result.alg,
        "variant": result.variant,
        "protocol": result.protocol,
        "k": str(result.k),
        "suite": result.suite,
        "study": result.study,
        "mlflow.source.name": "dvc repro",
        "mlflow.source.git.commit": result.commit,
        "DVC_EXP_NAME": result.experiment,
        **{f"dvc.{name}": digest for name, digest in result.digests.items()},
    }
    named = {key: value for key, value in tags.items() if value}
    run = client.create_run(experiment, run_name=result.run, tags=named).info.run_id
    status = "FAILED"
    try:
        _fill(client, run, result)
        for name, value in key.items():  # last: a run without them is not whole
            client.set_tag(run, name, value)
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)
    return True


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _experiment(client: MlflowClient, name: str) -> str:
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    # A server keeps files where it was told to; for the project's own database they lie beside it.
    own = "MLFLOW_TRACKING_URI" not in os.environ
    return str(client.create_experiment(name, (home() / "files" / name).as_uri() if own else None))


def _fill(client: MlflowClient, run: str, result: Result) -> None:
    from mlflow.entities import Dataset, DatasetInput, Param

    params = [Param(key, str(value)[:_LONGEST]) for key, value in result.settings.items()]
    for part in _chunks(params, _PARAMS_PER_CALL):
        client.log_batch(run, params=part)
    for metrics in _chunks([*_metrics(result), *_curve(result)], _METRICS_PER_CALL):
        client.log_batch(run, metrics=metrics)
    # MLflow's own digest of a table stops at its 10,000th row; this one covers every byte.
    cases = Dataset(f"{result.bench} cases", result.digests["cases"][:36], "dvc", "data")
    client.log_inputs(run, [DatasetInput(cases, [])])
    client.log_artifact(run, str(result.outcomes))
    client.log_dict(run, plain(result.metrics), "metrics.json")


def _metrics(result: Result) -> list[Metric]:
    from mlflow.entities import Metric

    now = _milliseconds(time.time())
    values = {name: numbers["value"] for name, numbers in result.metrics.items()}
    return [Metric(name, value, now, 0) for name, value in values.items() if value is not None]


def _curve(result: Result) -> list[Metric]:
    """The learning curve, dated back so that its last step is now."""
    from mlflow.entities import Metric

    if result.curve is None:
        return []
    curve = read_frame(result.curve)
    if curve.empty:
        return []
    start = time.time() - float(curve["seconds"].iloc[-1])
    names = [name for name in curve if name not in ("step", "seconds")]
    return [
        Metric(
            f"curve/{name}", float(row[name]), _milliseconds(start + row["seconds"]), row["step"]
        )
        for row in curve.to_dict("records")
        for name in names
        if not math.isnan(row[name])
    ]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
