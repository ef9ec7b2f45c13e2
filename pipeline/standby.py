"""Stages that DVC runs one after another by itself: the first leaves a warm process for the others.

`errata repro` has a warm process of its own; a plain `dvc repro` or `dvc exp run` starts a process
for every stage, and importing torch and transformers takes six seconds of each. So the first stage
of such a call leaves a server (`pipeline.warm`) behind, which lives as long as that DVC, and the
others are forks of it.
"""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline import warm

_SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh"}


def run(module: str, words: Sequence[str]) -> int:
    """Run `python -m MODULE WORDS...` here, or in a fork of the process that is warm for it."""
    if (master := _dvc()) is not None and (place := _place(master)) is not None:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(place))
            except OSError:  # nobody is there yet
                _leave_server(place, master)
            else:
                return warm.ask(sock, ["-m", module, *words])
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _dvc() -> int | None:
    """The DVC that runs this as a stage, if one does and this is no fork of a warm process.

    On Linux alone: elsewhere a fork of a process that has imported much may not be safe.
    """
    if "DVC_STAGE" not in os.environ or "torch" in sys.modules or sys.platform != "linux":
        return None
    import psutil

    parent = psutil.Process().parent()
    while parent is not None and parent.name() in _SHELLS:  # some stay, others make way for it
        parent = parent.parent()
    return None if parent is None else int(parent.pid)


def _place(master: int) -> Path | None:
    """Where a DVC's server listens; None where somebody else has that folder."""
    folder = Path(tempfile.gettempdir()) / f"errata-{os.getuid()}-{master}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid():
            return folder / "socket"
    return None


def _leave_server(place: Path, master: int) -> None:
    """Where none can be left, each stage starts by itself, as it would without."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
        place.unlink(missing_ok=True)  # of an earlier process of this number
        listener.bind(str(place))
        listener.listen()
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        warm.serving(listener, master, warm.STAGES, warm.LATER, start_new_session=True, **quiet)
