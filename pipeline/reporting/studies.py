"""The sections that only some studies have: each adds nothing where its runs are not there."""

from __future__ import annotations

from pipeline.reporting import (
    batched,
    caching,
    converging,
    costs,
    headline,
    ordering,
    overview,
    properties,
    scaling,
    sequential,
    tracing,
    variants,
)
from pipeline.reporting.blocks import Block, Folded, Gallery, Heading, Paragraph, Picture
from pipeline.reporting.report import Report
from pipeline.reporting.tables import title


def in_one_table(report: Report) -> None:
    """Every editor on every benchmark, and whether the paper's ordering appears."""
    material = report.material
    if any(run.k > 1 for run in material.request.runs) or not report.frames:
        return
    frame, table = overview.overview(material)
    report.csv["overview"] = frame
    report.add(Heading(text="In one table", key="overview"), table)
    # The paper's statements are about edits away from the truth.
    edits = len(material.labels()) > 1 and material.request.split == "validation"
    found = ordering.claims(material) if edits else []
    if found and all(run.plain for run in material.request.runs):
        report.csv["ordering"], statements = ordering.table(found)
        report.add(ordering.summary(found), statements)


def at_once(report: Report) -> None:
    """Success and drawdown against the number of edits made at once."""
    material = report.material
    if not batched.present(material):
        return
    found = batched.frame(material)
    report.csv["batched"] = found
    order = list(dict.fromkeys(found["editor"]))
    benches = [b for b in material.request.benches if b.name in report.frames]
    made = [batched.picture(bench.name, found, order) for bench in benches]
    tables = [batched.table(material, bench) for bench in benches]
    _section(report, Heading(text="Edits at once", key="batched"), [*tables], made)


def in_turn(report: Report) -> None:
    """Success and drawdown against the number of edits made one after another."""
    material = report.material
    for bench in material.request.benches:
        found = sequential.frame(material, bench.name) if bench.name in report.frames else None
        if found is None or found.empty:
            continue
        report.csv[f"sequence-{bench.name}"] = found
        order = list(dict.fromkeys(found["editor"]))
        made = [sequential.picture(bench.name, found, order)]
        pairs = sequential.pairs(material, bench.name)
        blocks: list[Block] = [sequential.table(bench, found), *pairs]
        heading = Heading(text=f"In turn: {title(bench.name)}", key=f"sequence-{bench.name}")
        _section(report, heading, blocks, made)


def scales(report: Report) -> None:
    """MEMIT's scores against the number of facts written at once."""
    material = report.material
    for bench in material.request.benches:
        found = scaling.frame(material, bench.name) if bench.name in report.frames else None
        if found is None or found.empty:
            continue
        report.csv[f"scaling-{bench.name}"] = found
        blocks: list[Block] = [scaling.table(material, bench, found)]
        split = scaling.by_relation(material, bench.name, found)
        if not split.empty:
            report.csv[f"relations-{bench.name}"] = split
            relations = scaling.relations(bench.name, split)
            blocks.append(Folded(summary="Relation by relation", blocks=(relations,)))
        order = list(dict.fromkeys(found["editor"]))
        made = [scaling.picture(bench.name, found, order)]
        heading = Heading(text=f"Scaling: {title(bench.name)}", key=f"scaling-{bench.name}")
        _section(report, heading, blocks, made)


def ablations(report: Report) -> None:
    """What each part of an editor is worth."""
    material = report.material
    by_bench = {bench: variants.ablated(material, bench) for bench in report.frames}
    runs = [run for own in by_bench.values() for run in own]
    if not runs:
        return
    found = variants.frame(material, runs)
    report.csv["ablations"] = found
    text = "Each variant has settings of its own, which `params.yaml` names; all else stays."
    if variants.taken_apart(runs):
        text = (
            "One part of the editor changed at a time; everything else, the training budget "
            "included, stays."
        )
    text += " Training steps are those it took before it stopped; its seconds are wall clock."
    tables = [
        variants.ablations(material, bench, found)
        for bench in material.request.benches
        if by_bench.get(bench.name)
    ]
    blocks: list[Block] = [Paragraph(text=text), *tables]
    _section(report, Heading(text="Ablations", key="ablations"), blocks, [])


def hardened(report: Report) -> None:
    """Editors that learned to leave neighbours alone, beside themselves."""
    material = report.material
    runs = variants.hardened(material)
    if not runs:
        return
    report.csv["hard"] = variants.frame(material, runs)
    text = (
        "Questions beside the edit are the hard part of locality: neighbours share the relation, "
        "hard neighbours the subject or a part of its name. A set of such questions is our own "
        "construction (zsRE-hard), and no paper has published numbers on it. The rows marked "
        "`hard` are the same editors, trained under the same budget, whose bystanders in training "
        "were drawn from the neighbours and hard neighbours too."
    )
    tables = [
        variants.hard(material, bench, runs)
        for bench in material.request.benches
        if any(run.bench == bench.name for run in runs)
    ]
    blocks: list[Block] = [Paragraph(text=text), *tables]
    _section(report, Heading(text="Hard neighbours in training", key="hard"), blocks, [])


def places(report: Report) -> None:
    """MLP against attention."""
    runs = variants.placed(report.material)
    if runs:
        report.csv["places"] = variants.frame(report.material, runs)
        table = variants.places(report.material, runs)
        _section(report, Heading(text="MLP or attention", key="places"), [table], [])


def cache(report: Report) -> None:
    """The cache's radius."""
    material = report.material
    made: list[Picture | None] = []
    tables: list[Block] = []
    for bench in material.request.benches:
        table = caching.table(material, bench) if bench.name in report.frames else None
        if table is None:
            continue
        tables.append(table)
        for run in caching.runs(material, bench.name).values():
            notes = material.fits.get(run.name, {})
            if not run.variant:
                harm = headline.drawdown(material.metrics[run.name])
                made.append(caching.picture(bench.name, notes, ["cache"], harm))
                curve = caching.curve(notes)
                if not curve.empty:
                    report.csv[f"radius-{bench.name}"] = curve
    _section(report, Heading(text="The cache's radius", key="cache"), tables, made)


def traced(report: Report) -> None:
    """Where the base model keeps its facts."""
    material = report.material
    for bench, tables in material.traces.items():
        found = tracing.effects(tables, material.request.seed)
        report.csv[f"tracing-{bench}"] = found
        report.csv[f"traced-facts-{bench}"] = tables.facts
        blocks: list[Block] = [
            tracing.introduction(material, bench),
            tracing.table(found, "Average indirect effects at their strongest"),
            tracing.layers(found, dict(tables.layers)),
        ]
        made = [
            tracing.average_map(bench, found),
            tracing.severed_lines(bench, found),
            *tracing.fact_maps(bench, tables),
        ]
        _section(
            report, Heading(text="Where facts are stored", key=f"tracing-{bench}"), blocks, made
        )


def converged(report: Report) -> None:
    """How far the second moments that editors read have settled."""
    tables: list[Block] = []
    made: list[Picture | None] = []
    for bench, curve in report.material.moments.items():
        if not curve.empty:
            report.csv[f"moments-{bench}"] = curve
            tables.append(converging.table(bench, curve))
            made.append(converging.picture(bench, curve))
    _section(report, Heading(text="Second moments", key="moments"), tables, made)


def traits(report: Report) -> None:
    """What it takes to use each editor."""
    if report.frames:
        report.csv["properties"], table = properties.properties(report.material)
        report.add(Heading(text="What each editor takes", key="properties"), table)


def spent(report: Report) -> None:
    """Time and memory."""
    report.csv["timings"], table = costs.timings(report.material)
    report.csv["time"], whole = costs.whole(report.material)
    report.add(Heading(text="Time and memory", key="costs"), whole)
    memory = costs.memory(report.material)
    if memory:
        report.csv["memory"] = memory[0]
        report.add(memory[1])
    report.add(table)


def _section(
    report: Report, heading: Heading, blocks: list[Block], made: list[Picture | None]
) -> None:
    if not blocks:
        return
    pictures = tuple(picture for picture in made if picture)
    report.add(heading, *blocks)
    if pictures:
        report.pictures += pictures
        report.add(Gallery(pictures=pictures))
