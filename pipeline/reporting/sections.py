"""The report's sections, in order. A new study adds a function to `studies`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.reporting import (
    columns,
    details,
    examples,
    figures,
    pairs,
    provenance,
    published,
    studies,
    tables,
)
from pipeline.reporting.blocks import (
    Document,
    Folded,
    Gallery,
    Heading,
    Paragraph,
    Table,
    Terms,
)
from pipeline.reporting.inputs import Bench, Material
from pipeline.reporting.report import Report


def compose(material: Material) -> tuple[Document, Report]:
    """Everything a report says, and the tables and figures it says it with."""
    request = material.request
    frames = {
        bench.name: tables.main_frame(material, bench.name)
        for bench in request.benches
        if material.of(bench.name)
    }
    report = Report(material=material, frames=frames)
    for section in _SECTIONS if request.runs else _WITHOUT_EDITS:
        section(report)
    heading = f"Errata: model editors compared, {request.suite} suite"
    if not request.runs:
        heading = f"Errata: a base model looked into, {request.suite} suite"
    subtitle = (
        f"{_subject(material, frames)}; suite `{request.suite}`, study `{request.study}`, seed "
        f"{request.seed}."
    )
    return Document(title=heading, subtitle=subtitle, blocks=tuple(report.blocks)), report


def _subject(material: Material, frames: Mapping[str, object]) -> str:
    if not frames:
        return f"No edits, on {', '.join(tables.title(name) for name in material.traces)}"
    editors = _editors(material)
    names = ", ".join(tables.title(name) for name in frames)
    count = "1 editor" if len(editors) == 1 else f"{len(editors)} editors"
    return f"{count} ({', '.join(editors)}) on {names}"


def _editors(material: Material) -> list[str]:
    return list(dict.fromkeys(run.alg for run in material.request.runs))


_ALONE = (
    "Every case is one edit, made on the unedited model and scored alone (protocol `single`); the "
    "next case starts from the unedited model again."
)
_TOGETHER = (
    "k cases are edited together on the unedited model (k = 1: one edit alone), and each case is "
    "scored on the model that all k have changed; the next k start from the unedited model again. "
    "Intervals draw whole groups of k cases."
)
_IN_TURN = (
    "k cases are edited one after another, each on the model as those before it left it (k = 1: "
    "one edit alone), and every case is scored when all k are made; the next k start from the "
    "unedited model again. Intervals draw whole groups of k cases."
)
_SCORED = {
    "validation": "Only validation cases are scored: editors and their settings have never seen "
    "them.",
    "correction": "Only corrections are scored (split `correction`): facts that the base model was "
    "not taught and gets wrong, edited to the truth; editors and their settings have never seen "
    "them.",
}


def _how_to_read(report: Report) -> None:
    shown = {
        name
        for frame in report.frames.values()
        for name in columns.ALL
        if name in frame and not frame[name].isna().all()
    }
    by_tokens = any(map(report.material.by_tokens, report.frames))
    terms = [
        (column.label, column.meaning)
        for name, column in columns.ALL.items()
        if name in shown and (by_tokens or name not in columns.OTHER)
    ]
    runs = report.material.request.runs
    made = _TOGETHER if any(run.k > 1 for run in runs) else _ALONE
    made = _IN_TURN if any(run.in_turn for run in runs) else made
    report.add(
        Heading(text="How to read this", key="reading"),
        Paragraph(
            text=f"{made} {_SCORED[report.material.request.split]} In "
            "brackets stand 95 % bootstrap intervals over cases. An interval without width says "
            "that all cases came out alike, not that the number is certain: with n such cases the "
            "true share may still lie about 3/n away. A case that breaks the model counts as "
            "failed. The first row of each table is the model before any edit; what compares with "
            "it has a dash there. Any other dash: the editor or benchmark has no such number, or "
            "too few cases have one; where an editor was left out, the reason is below the table."
        ),
        Folded(summary="What each metric measures", blocks=(Terms(items=tuple(terms)),)),
    )


def _base(report: Report) -> None:
    frame = details.base_frame(report.material)
    report.csv["base"] = frame
    report.add(
        Heading(text="Base models", key="base"),
        Paragraph(
            text="An editor can only be judged on a model that knows its facts, so the models' "
            "own quality comes first."
        ),
        details.base_table(frame),
    )


def _results(report: Report) -> None:
    report.add(Heading(text="Editors", key="editors"))
    known = [bench for bench in report.material.request.benches if bench.name in report.frames]
    if not any(bench.paper for bench in known):
        report.add(
            Paragraph(
                text="No published numbers stand here: the papers edited other models on other "
                "data, and a number from another setting compares nothing."
            )
        )
    for bench in known:
        _benchmark(report, bench)


def _benchmark(report: Report, bench: Bench) -> None:
    frame = report.frames[bench.name]
    setting = published.setting(bench.paper, bench.name) if bench.paper else None
    name = tables.title(bench.name)
    report.csv[bench.name] = frame
    notes = [*tables.table_notes(frame), *details.kept_probes(report.material, bench.name)]
    if setting:
        notes.append(f"Published: {setting.source}; {setting.model}; {setting.data}.")
    report.add(
        Heading(text=name, key=f"bench-{bench.name}", level=3),
        tables.main_table(
            frame,
            columns.MAIN,
            f"{tables.edits(report.material.of(bench.name))}, {tables.cases(frame)}",
            setting=setting,
            notes=notes,
        ),
    )
    if "S" in frame:
        caption = "Likelihood scores times 100: S, ES, PS and NS in percent; a tie fails"
        report.add(tables.main_table(frame, columns.SCORES, caption, setting=setting))
    if report.material.by_tokens(bench.name):
        caption = "As zsRE is scored for language models, in percent"
        report.add(tables.main_table(frame, columns.ZSRE, caption, setting=setting))
    more = tables.main_table(frame, columns.MORE, "")
    report.add(Folded(summary=f"More measures on {name}", blocks=(more,)))


def _figures(report: Report) -> None:
    order = report.material.labels()
    made = [figures.success_and_drawdown(*item, order) for item in report.frames.items()]
    pictures = [picture for picture in made if picture]
    for bench in report.frames:
        runs = report.material.of(bench)
        curves = {r.label: report.material.curves[r.name] for r in runs if _learns(report, r.name)}
        picture = figures.learning_curves(bench, curves, order)
        if picture:
            pictures.append(picture)
    for run in report.material.request.runs:
        if run.name in report.material.curves:
            report.csv[f"curves/{run.name}"] = report.material.curves[run.name]
    if pictures:
        report.pictures += pictures
        report.add(Heading(text="Figures", key="figures"), Gallery(pictures=tuple(pictures)))


def _learns(report: Report, run: str) -> bool:
    """Whether there is a curve with anything measured on validation cases."""
    curve = report.material.curves.get(run)
    return curve is not None and bool(curve[["val_success", "val_loss"]].notna().any().any())


def _pairs(report: Report) -> None:
    frame, table = pairs.pairs(report.material)
    report.csv["pairs"] = frame
    if table.rows:
        report.add(
            Heading(text="Editor against editor", key="pairs"),
            Paragraph(
                text="The same cases under both editors, drawn again together: what makes a case "
                "hard for both cancels out, so these intervals decide where two rows of a table "
                "overlap."
            ),
            table,
        )


def _choices(report: Report) -> None:
    table = details.choices(report.material)
    if table:
        report.add(Heading(text="Settings chosen by fitting", key="choices"), table)


def _examples(report: Report) -> None:
    shown: list[tuple[str, Table]] = []
    for bench in report.frames:
        runs = report.material.of(bench)
        most = max(run.k for run in runs)  # of edits at once: the hardest setting alone
        frames = [(r.label, report.material.outcomes[r.name]) for r in runs if r.k == most]
        outcomes = examples.by_editor(frames)
        for case_id, rule in examples.choose(outcomes):
            shown.append((bench, examples.table(outcomes, case_id, rule)))
    if not shown:
        return
    report.csv["examples"] = examples.long_form(shown)
    report.add(
        Heading(text="Example edits", key="examples"),
        Paragraph(
            text="Per benchmark, the first case by id that fits each rule. ✓ and ✗ say whether "
            "the probe's whole target is the likeliest answer; where the model also wrote "
            "freely, its own words are shown. An edit under-generalises where it holds in its own "
            "wording and not in another, and over-generalises where its answer is given to a "
            "question it is not about; kept: right before, and still right."
        ),
    )
    for bench in report.frames:
        report.add(Heading(text=tables.title(bench), key=f"examples-{bench}", level=3))
        report.add(*(table for name, table in shown if name == bench))


def _data(report: Report) -> None:
    frame, table = details.data(report.material)
    report.csv["data"] = frame
    report.add(Heading(text="Data", key="data"), table)


def _record(report: Report) -> None:
    material = report.material
    left_out, changed = provenance.skipped(material), provenance.differences(material)
    report.add(Heading(text="What was left out or changed", key="record"))
    report.add(left_out or Paragraph(text=provenance.covered(material)))
    if changed:
        report.add(
            Paragraph(text="Settings where `params.yaml` differs from the default composition:"),
            changed,
        )
    else:
        report.add(Paragraph(text="`params.yaml` is the default composition of `conf/`."))
    frame, hashes = provenance.identities(material)
    report.csv["hashes"] = frame
    files = provenance.files(material)
    blocks = (hashes, files) if files else (hashes,)
    report.add(Folded(summary="Hashes of models, editors, cases and files", blocks=blocks))


_SECTIONS: tuple[Callable[[Report], None], ...] = (
    studies.in_one_table,
    studies.scales,
    studies.at_once,
    studies.in_turn,
    studies.ablations,
    studies.hardened,
    studies.places,
    studies.cache,
    studies.traced,
    _how_to_read,
    _base,
    _results,
    _pairs,
    studies.converged,
    studies.traits,
    _choices,
    _figures,
    _examples,
    _data,
    studies.spent,
    _record,
)
_WITHOUT_EDITS: tuple[Callable[[Report], None], ...] = (studies.traced, _base, _data, _record)
