"""`python -m benchmarks`: measure, print a table, write reports/benchmarks/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import bound, editing, facts, growth, hardware, memory, report, training
from benchmarks.clock import Contest, Outcome, agree, settle, tidy
from benchmarks.setup import Setup, setup
from benchmarks.sizes import SIZES, Size

Build = Callable[[Setup], list[Contest]]
CONTESTS: dict[str, Build] = {
    "training": training.contests,
    "edits": editing.single_edits,
    "ft": editing.fine_tuning,
    "scoring": editing.fact_scoring,
    "facts": facts.contests,
    "moments": facts.moments,
}
OTHERS = ("bound", "memory", "growth")
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
        help=f"some of: {', '.join([*CONTESTS, *OTHERS])}",
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for."""
    given = parser().parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = getattr(torch, given.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    size = SIZES[given.size]
    wanted = given.only or [n for n in (*CONTESTS, *OTHERS) if applies(n, size)]
    path = given.out / f"{size.name}-{device.type}"
    about = {**hardware.describe(device), "size": size.name, "dtype": str(dtype)}
    about["repeats"] = given.repeats
    found = report.Report(path, f"Benchmarks: {size.name} on {about['device']}", about)
    measure(found, size, device, dtype, given.repeats, wanted)
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
) -> None:
    """Fill in and write a report, part by part."""
    for name in (n for n in CONTESTS if n in wanted):
        made = setup(size, device, dtype, repeats)
        contests = CONTESTS[name](made)
        checks = contests if made.checked() is made else CONTESTS[name](made.checked())
        for place in range(len(contests)):
            found.outcomes.append(_settled(contests, checks, place, made))
            print(report.aligned(report.table(found.outcomes[-1:])), flush=True)
            found.write()
        del made, contests, checks
        tidy()
    if "bound" in wanted:
        found.bounds = _bounds(found.outcomes, size, device, dtype, repeats)
        found.write()
    if "memory" in wanted:
        names = ["mend", "ke"]
        found.peaks = memory.measure(size, device, dtype, names)
        found.write()
    if "growth" in wanted:
        base = size if size.name == "tiny" else SIZES["growth"]
        found.lines = growth.measure(base, device, dtype, repeats, short=size.name == "tiny")
        found.figure = found.path.with_name(f"{found.path.name}-growth.svg")
        growth.draw(found.lines, found.figure)
        found.write()


def _settled(contests: list[Contest], checks: list[Contest], place: int, made: Setup) -> Outcome:
    """One contest's outcome; its networks are dropped with it, for they may be large."""
    if checks is not contests:
        agree(checks[place])
    outcome = settle(contests[place], made.device, made.repeats, check=checks is contests)
    contests[place] = checks[place] = None  # type: ignore[call-overload]
    return outcome


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
