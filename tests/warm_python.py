"""A `python` for tests that run the graph: torch is imported once, and each stage is a fork.

DVC starts a process for every stage, and importing torch and transformers takes most of a tiny
stage's time. `serve` imports them and waits; the command that `install` writes hands its words,
its environment and its streams over, and ends as the fork ends. The project's own modules are
imported by each fork anew.
"""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def warm(folder: Path) -> Iterator[Path]:
    """A folder whose `python` is warm, for as long as the context lasts."""
    place = folder / "socket"
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -SE {__file__} {place} "$@"\n')
    command.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        code = f"import warm_python; warm_python.serve({listener.fileno()})"
        server = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            pass_fds=[listener.fileno()],
        )
    try:
        yield folder
    finally:
        server.terminate()
        server.wait()


def serve(listener: int) -> None:
    """Import what is slow, then run one stage after another."""
    import mlflow  # noqa: F401
    import torch  # noqa: F401
    import transformers.models.bart.modeling_bart
    import transformers.models.bert.modeling_bert
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    sys.path.remove("")
    with socket.socket(fileno=listener) as sock:
        while True:
            connection, _ = sock.accept()
            with connection:
                text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
                child = os.fork()
                if child == 0:
                    _run(json.loads(text), streams)
                for stream in streams:
                    os.close(stream)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                connection.sendall(str(code).encode())


def _run(request: dict[str, object], streams: list[int]) -> None:
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
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            sys.stderr.write(f"{code}\n")
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def _ask(place: str, words: list[str]) -> int:
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(place)
        socket.send_fds(sock, [json.dumps(request).encode()], [0, 1, 2])
        return int(sock.recv(16) or b"1")


if __name__ == "__main__":
    sys.exit(_ask(sys.argv[1], sys.argv[2:]))
