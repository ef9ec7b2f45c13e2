"""A `python` that has imported torch and DVC already: each stage is a fork of it.

DVC starts a process for every stage, and importing torch and transformers takes six seconds of
each; every call of DVC itself takes half a second to import it. The server imports them once and
waits; the command that takes the place of `python` hands its words, environment and streams over,
and ends as the fork ends. What only the last stages want it imports while nobody asks. The
project's own modules are imported by each fork anew, so a change of code is seen.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

STAGES = (  # what stages import
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "pyarrow.parquet",
    "ruamel.yaml",
    "torch",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bart.modeling_bart",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gpt2.modeling_gpt2",
)
MODULES = (
    *STAGES,
    "dvc.cli.parser",
    "dvc.dvcfile",
    "dvc.repo.plots",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.scm",
    "dulwich.ignore",
    "pyparsing",
)
LATER = (  # what only the last stages import
    "sklearn.feature_extraction.text",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
)

_POLL = 0.02  # seconds between looks at whether a fork has ended
_ALIVE = 1.0  # and at whether those live for whom it works; if nobody asks as long, it is idle
_INTERRUPT = b"i"


@contextmanager
def warm(modules: Sequence[str] = MODULES, later: Sequence[str] = LATER) -> Iterator[Path]:
    """A folder to put in front of PATH; its `python` is warm for as long as the context lasts.

    It serves `python -m MODULE WORDS...`, several at once.

    Args:
        modules: imported before it serves.
        later: imported when nobody asks for a second.
    """
    with TemporaryDirectory(prefix="errata-") as name:
        folder = Path(name)
        place, command = folder / "socket", folder / "python"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -SEP {__file__} {place} "$@"\n')
        command.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
            listener.listen()
            server = serving(listener, os.getpid(), modules, later)
        try:
            yield folder
        finally:
            server.terminate()
            server.wait()


def serving(
    listener: socket.socket,
    parent: int,
    modules: Sequence[str],
    later: Sequence[str],
    **how: Any,
) -> subprocess.Popen[bytes]:
    """A server at a bound socket, for as long as the process `parent` lives.

    Args:
        modules, later: as `warm` takes them.
        how: as `subprocess.Popen` takes it.
    """
    words = [sys.executable, "-P", __file__, "--serve", str(listener.fileno()), str(parent)]
    words += [",".join(modules), ",".join(later)]
    return subprocess.Popen(words, pass_fds=[listener.fileno()], **how)


def with_python_of(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """An environment in which `python` is the one in a folder."""
    path = os.pathsep.join([str(folder), environment.get("PATH", os.defpath)])
    return {**environment, "PATH": path}


def _serve(listener: int, parent: int, modules: Sequence[str], later: Sequence[str]) -> None:
    """Import what is slow, then fork for whoever asks."""
    import psutil

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks hears of it, and passes it on
    master = psutil.Process(parent)
    _import(modules)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(fileno=listener) as sock:
        while _lives(master):  # or it was killed, and nobody will ask any more
            if not select.select([sock], [], [], _ALIVE)[0]:
                if later:
                    with suppress(Exception):  # whoever needs it will say what is wrong
                        _import(later[:1])
                    later = later[1:]
                continue
            connection, _ = sock.accept()
            with connection:
                if os.fork() == 0:
                    sock.close()
                    _answer(connection)
        shutil.rmtree(Path(sock.getsockname()).parent, ignore_errors=True)


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    if "transformers" in sys.modules:
        _know_checkpoints()
    gc.freeze()  # or each fork looks through half a million objects, now and again


def _know_checkpoints() -> None:
    """What transformers works out once, a third of a second, when it opens its first model."""
    with suppress(ImportError):  # where another version does without
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("gpt2")


def _lives(process: Any) -> bool:
    import psutil

    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _answer(connection: socket.socket) -> None:
    """Run one request in a fork and send its exit code.

    The fork leads a process group, so that what it starts ends with it: DVC's stages are requests
    of their own, made by processes of its group.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    # An interrupt may wait in the connection already: it must not meet a fork that ignores it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    child = os.fork()
    if child == 0:
        connection.close()
        _run(json.loads(text), streams)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    with suppress(OSError):  # the fork does the same: whichever comes first
        os.setpgid(child, child)
    for stream in streams:
        os.close(stream)
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if select.select([connection], [], [], _POLL)[0]:
            if connection.recv(1) == _INTERRUPT:
                os.killpg(child, signal.SIGINT)
            else:  # whoever asked is gone
                os.killpg(child, signal.SIGTERM)
                os._exit(1)
    connection.sendall(str(os.waitstatus_to_exitcode(ended[1])).encode())
    os._exit(0)


def _run(request: Mapping[str, object], streams: Sequence[int]) -> None:
    os.setpgid(0, 0)
    words, folder, environment = request["words"], request["folder"], request["environment"]
    assert isinstance(words, list)
    assert isinstance(folder, str)
    assert isinstance(environment, dict)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    assert words[0] == "-m", words
    sys.path.insert(0, folder)
    sys.argv = words[1:]
    code: object = 0
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:  # what would end a process of its own ends this one the same way
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def ask(sock: socket.socket, words: Sequence[str]) -> int:
    """Have the server at a connected socket run `python WORDS...`; its exit code."""
    parent = os.getppid()
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(sock, [json.dumps(request).encode()], [0, 1, 2])
    while True:
        try:
            if select.select([sock], [], [], _ALIVE)[0]:
                return int(sock.recv(16) or b"1")
            if os.getppid() != parent:  # nobody waits: the fork ends as this process does
                return 1
        except KeyboardInterrupt:  # the fork is told, and says how it ended
            sock.sendall(_INTERRUPT)


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        first, then = (tuple(filter(None, names.split(","))) for names in sys.argv[4:])
        _serve(int(sys.argv[2]), int(sys.argv[3]), first, then)
        sys.exit()
    with socket.socket(socket.AF_UNIX) as found:
        found.connect(sys.argv[1])
        sys.exit(ask(found, sys.argv[2:]))
