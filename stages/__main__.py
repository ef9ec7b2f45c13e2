"""Run a stage: `python -m stages fit zsre-mend`."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import standby

STAGES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STAGES:
        sys.exit(f"usage: python -m stages STAGE [WHAT]; stages: {', '.join(STAGES)}")
    sys.exit(standby.run(f"stages.{sys.argv[1]}", sys.argv[2:]))
