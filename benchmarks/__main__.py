"""`python -m benchmarks`: measure, print a table, write reports/benchmarks/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from benchmarks import bound, corpus, editing, facts, growth, hardware, memory, report, training
from benchmarks.clock import Contest, Outcome, agree, settle, tidy
from benchmarks.setup import Setup, setup
from benchmarks.sizes import SIZES, Size, Work, resized

Build = Callable[[Setup], list[Contest]]
CONTESTS: dict[str, Build] = {
    "training": training.contests,
    "edits": editing.single_edits,
    "ft": editing.fine_tuning,
    "scoring": editing.fact_scoring,
    "facts": facts.contests,
    "moments": corpus.moments,
}
OTHERS = ("bound", "memory", "sizes", "growth")
CAUSAL = ("scoring", "facts", "moments")

_EXAMPLES = """examples:
  python -m benchmarks --size tiny --repeats 1      a dry run, in seconds
  python -m benchmarks --threads 2                  the GPT-2-small shape on two cores
  python -m benchmarks --only training bound        some of it
  python -m benchmarks --size gpt-j-6b --device cuda --dtype bfloat16
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory against one example at a time on a copy. "
        "Models are random; every result is compared before anything is timed.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = [name for name in SIZES if name != "growth"]
    found.add_argument("--size", choices=sizes, default="gpt2-small", help="shape of the model")
    found.add_argument(
        "--only", nargs="+", choices=[*CONTESTS, *OTHERS], metavar="NAME",
        help=f"some of: {', '.join([*CONTESTS, *OTHERS])}; the others keep their numbers",
    )  # fmt: skip
    found.add_argument(
        "--named", metavar="TEXT", help="only contests whose names have this in them (mend, z, ...)"
    )
    found.add_argument(
        "--work", nargs="+", default=[], metavar="NAME=COUNT", type=_count,
        help="other amounts of work, as `facts=16`; names are in benchmarks/sizes.py",
    )  # fmt: skip
    found.add_argument("--device", help="cpu, cuda, cuda:1; the first GPU if there is one")
    found.add_argument(
        "--dtype", choices=["float32", "bfloat16"],
        help="of the model; editors stay in float32 (default: float32, bfloat16 on a GPU)",
    )  # fmt: skip
    found.add_argument("--threads", type=int, help="of torch; as many as cores by default")
    found.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    found.add_argument(
        "--out", type=Path, default=Path("reports/benchmarks"), help="where files are written"
    )
    return found


def _count(text: str) -> tuple[str, int]:
    name, _, count = text.partition("=")
    names = [field.name for field in fields(Work) if isinstance(field.default, int)]
    if name not in names or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of work: {', '.join(names)}")
    return name, int(count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for."""
    given = parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = getattr(torch, given.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    size = resized(SIZES[given.size], **dict(given.work))
    wanted = given.only or [n for n in (*CONTESTS, *OTHERS) if applies(n, size)]
    path = given.out / f"{size.name}-{device.type}"
    about = {**hardware.describe(device), "size": size.name, "dtype": str(dtype)}
    found = report.Report(path, f"Benchmarks: {size.name} on {about['device']}", about)
    if given.only:
        found.resume()
    measure(found, size, device, dtype, given.repeats, wanted, given.named or "")
    print(f"\nWritten to {path}.md and {path}.json")
    return 0


def applies(name: str, size: Size) -> bool:
    """Facts are edited in causal models."""
    return name not in CAUSAL or size.family != "t5"


def measure(
    found: report.Report,
    size: Size,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    wanted: Sequence[str],
    named: str = "",
) -> None:
    """Fill in and write a report, part by part; of contests, those whose name contains `named`."""
    for name in (n for n in CONTESTS if n in wanted):
        made = setup(size, device, dtype, repeats)
        checked, contests = made.checked(), CONTESTS[name](made)
        checks = contests if checked is made else CONTESTS[name](checked)
        pairs = [p for p in zip(contests, checks, strict=True) if named in p[0].name]
        del contests, checks
        while pairs:  # networks may be large, and go with their contest
            outcome = _settled(*pairs.pop(0), made)
            print(report.aligned(report.table([outcome])), flush=True)
            found.add(outcome)
            found.write()
        del made, checked
        tidy()
    if "bound" in wanted:
        found.bounds = _bounds(found.outcomes, size, device, dtype, repeats)
        found.write()
    if "memory" in wanted:
        names = ["mend", "ke"]
        found.peaks = memory.measure(size, device, dtype, names)
        found.write()
    if "sizes" in wanted:
        found.by_size = memory.by_size(size, device, dtype, list(size.work.learners))
        memory.draw(found.by_size, found.beside("memory.svg"))
        found.write()
    if "growth" in wanted:
        base = size if size.name == "tiny" else SIZES["growth"]
        found.lines = growth.measure(base, device, dtype, repeats, short=size.name == "tiny")
        growth.draw(found.lines, found.beside("growth.svg"))
        found.write()


def _settled(contest: Contest, check: Contest, made: Setup) -> Outcome:
    """One contest's outcome, with its results compared on what stands in for it or on itself."""
    if check is not contest:
        agree(check)
    return settle(contest, made.device, made.repeats, check=check is contest)


def _bounds(
    outcomes: Sequence[Outcome],
    size: Size,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
) -> list[dict[str, Any]]:
    """For MEND's training step: flops, the rate of large products, and what was measured."""
    taken = [o for o in outcomes if o.name == "mend training"]
    made = setup(size, device, dtype, repeats)
    if not taken:
        contest = training.contests(made)[0]
        taken = [settle(contest, device, repeats, check=False)]
    flops = bound.count_flops(made, "mend")
    rate = bound.matrix_rate(device, dtype, repeats, 64 if size.name == "tiny" else 2048)
    measured = taken[0].ours.cpu_each * taken[0].ours.items
    return [
        {
            "name": "mend",
            "flops": flops,
            "rate": rate,
            "seconds": flops / rate,
            "measured": measured,
        }
    ]


if __name__ == "__main__":
    sys.exit(main())
