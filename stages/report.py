"""Numbers, tables and the MLflow runs of every run that the record names."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from pipeline import composition, reporting, results, tracking
from pipeline.config import Params, merged
from pipeline.editing.depths import Depth, published
from pipeline.metrics import plain
from pipeline.storage import read_json, write_json
from stages import DATA, bench_folder, start


def report(params: Params) -> None:
    """reports/S/STUDY/: metrics of each run, tables, figures, examples; one MLflow run each."""
    root = Path()
    folder = results.report_folder(root, params)
    found = results.collect(root, params)
    for result in found:
        write_json(folder / "metrics" / f"{result.run}.json", plain(result.metrics))
    with ProcessPoolExecutor(1) as beside:  # each takes seconds of one core
        logged = beside.submit(tracking.log, found)
        reporting.write_report(_request(root, params, found), folder)
        logged.result()


def _request(root: Path, params: Params, found: list[results.Result]) -> reporting.Request:
    differences = composition.record_differences(root)
    skipped = params["skipped"]
    return reporting.Request(
        suite=params["suite"],
        study=params["study"],
        seed=params["seed"],
        split=params["evaluate"]["split"],
        benches=tuple(_bench(params, bench) for bench in params["used"]),
        runs=tuple(_run(root, params, result) for result in found),
        skipped=tuple(
            reporting.Skipped(
                bench=pair["bench"],
                alg="-".join(part for part in (pair["alg"], pair.get("variant")) if part),
                reason=pair["reason"],
            )
            for pair in skipped
        ),
        traces=tuple(_trace(params, bench) for bench in params["traces"]),
        differences=tuple(
            reporting.Difference(setting=path, default=usual, value=value)
            for path, value, usual in differences
        ),
    )


def _bench(params: Params, bench: str) -> reporting.Bench:
    folder = bench_folder(params, bench)
    return reporting.Bench(
        name=bench,
        base=folder / "base.json",
        card=folder / "prepared" / "card.json",
        audit=folder / "labelled" / "audit.json",
        moments=folder / "moments" / "moments.json" if bench in params["moments"] else None,
        paper=params["benches"][bench]["paper"],
    )


def _trace(params: Params, bench: str) -> reporting.Trace:
    """What was traced, and which blocks the editors of single layers are set to change."""
    layers = {}
    usual = _published(bench_folder(params, bench) / "base" / "config.json")
    for alg, settings in params["editors"].items():
        own = merged(settings, params["overrides"].get(alg, {}).get(bench, {}))
        for name, default in (("layer", (usual.rome,)), ("layers", usual.memit)):
            if name in own:
                chosen = default if own[name] is None else own[name]
                blocks = chosen if isinstance(chosen, list | tuple) else [chosen]
                known = [str(block) for block in blocks if block is not None]
                layers[alg] = ", ".join(known) or "none is published for this size"
    folder = DATA / params["suite"] / params["study"] / f"trace-{bench}"
    return reporting.Trace(bench=bench, folder=folder, layers=layers)


def _published(config: Path) -> Depth:
    """Which blocks the papers edit in a model of this kind and depth, if they have one."""
    if not config.is_file():
        return Depth()
    found = read_json(config)
    return published(
        found.get("model_type", ""), found.get("num_hidden_layers", found.get("n_layer", 0))
    )


def _run(root: Path, params: Params, result: results.Result) -> reporting.Run:
    notes = root / params["runs"][result.run]["editor"] / "fit.json"
    item = params["runs"][result.run]
    return reporting.Run(
        name=result.run,
        bench=result.bench,
        alg=result.alg,
        folder=result.outcomes.parent,
        metrics=results.report_folder(root, params) / "metrics" / f"{result.run}.json",
        curve=result.curve,
        fit=notes if notes.is_file() else None,
        variant=item.get("variant", ""),
        protocol=item.get("protocol", "single"),
        k=item.get("k", 1),
    )


if __name__ == "__main__":
    start(report)
