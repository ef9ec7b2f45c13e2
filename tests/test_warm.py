"""A stage run by a fork behaves like a process of its own: words, folder, streams, exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.warm import warm, with_python_of

PROGRAM = """import os, sys, time
print(sys.argv[1:], os.environ["MARK"], os.path.basename(os.getcwd()), __name__, flush=True)
print("to stderr", file=sys.stderr)
print("colorsys" in sys.modules)
time.sleep(float(os.environ.get("WAIT", 0)))
if sys.argv[1] == "dies":
    sys.exit("what went wrong")
if sys.argv[1] == "breaks":
    raise ValueError(sys.argv[1])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A folder with a program, and one with a warm `python`."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "program.py").write_text(PROGRAM)
    with warm(["colorsys"], later=["there_is_no_such", "stringprep"]) as commands:
        yield folder, commands


def start(
    place: tuple[Path, Path], *words: str, module: str = "program", **extra: str
) -> subprocess.Popen[str]:
    folder, commands = place
    return subprocess.Popen(
        ["python", "-m", module, *words],
        cwd=folder,
        env=with_python_of({**os.environ, "MARK": "here", **extra}, commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_words_environment_folder_and_streams_arrive(place: tuple[Path, Path]) -> None:
    out, err = start(place, "one", "two words").communicate()
    assert out.splitlines() == [f"['one', 'two words'] here {place[0].name} __main__", "True"]
    assert err == "to stderr\n"


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [("fine", 0, ""), ("dies", 1, "what went wrong"), ("breaks", 1, "ValueError: breaks")],
)
def test_it_ends_as_a_process_would(
    place: tuple[Path, Path], word: str, code: int, said: str
) -> None:
    process = start(place, word)
    _, err = process.communicate()
    assert process.returncode == code
    assert said in err


def test_a_forks_collector_does_not_look_through_what_was_imported(
    place: tuple[Path, Path],
) -> None:
    (place[0] / "counts.py").write_text(
        "import gc\nprint(gc.get_freeze_count() > 5000, len(gc.get_objects()) < 5000)"
    )
    out, _ = start(place, module="counts").communicate()
    assert out == "True True\n"


def test_what_is_wanted_later_is_imported_while_nobody_asks(place: tuple[Path, Path]) -> None:
    (place[0] / "asks.py").write_text("import sys\nprint('stringprep' in sys.modules)")
    for _ in range(20):
        out, _ = start(place, module="asks").communicate()
        if out == "True\n":
            return
        time.sleep(1.2)
    pytest.fail("it was not imported")


def test_several_run_at_once(place: tuple[Path, Path]) -> None:
    slow = start(place, "slow", WAIT="60")
    quick = start(place, "quick")
    assert quick.wait() == 0
    assert slow.poll() is None
    slow.kill()
    slow.communicate()
    quick.communicate()


def test_a_fork_ends_with_whoever_asked_for_it(place: tuple[Path, Path]) -> None:
    slow = start(place, "slow", WAIT="60")
    assert slow.stdout is not None
    slow.stdout.readline()
    slow.kill()
    slow.communicate(timeout=30)  # returns when the fork's end closes the streams


def test_a_change_of_code_is_seen(place: tuple[Path, Path]) -> None:
    (place[0] / "other.py").write_text("print('first')")
    said = []
    for text in ("first", "second"):
        (place[0] / "other.py").write_text(f"print('{text}')")
        (place[0] / "program2.py").write_text("import other")
        done = subprocess.run(
            ["python", "-m", "program2"],
            cwd=place[0],
            env=with_python_of({**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, place[1]),
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(done.stdout.strip())
    assert said == ["first", "second"]


def test_an_interrupted_one_tidies_up_and_says_how_it_ended(place: tuple[Path, Path]) -> None:
    folder, commands = place
    (folder / "tidy.py").write_text(
        "import time\n"
        "try:\n    print('here', flush=True)\n    time.sleep(9)\n"
        "finally:\n    time.sleep(0.3)\n    print('tidied')\n"
    )
    with subprocess.Popen(
        ["python", "-m", "tidy"],
        cwd=folder,
        env=with_python_of(dict(os.environ), commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)  # who asked passes it on
        out, err = process.communicate()
    assert out == "tidied\n"
    assert process.returncode == 130
    assert err == ""


def test_an_interrupt_while_it_is_waited_for_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(3)\n")
    (tmp_path / "goes_on.py").write_text("import time\ntime.sleep(30)\nprint('to the end')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with warm(["slow_to_import"], ()) as commands:
        process = start((tmp_path, commands), module="goes_on")
        time.sleep(1)  # it asks, and nobody answers yet
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT)
    assert out == ""


def ended(number: int) -> bool:
    """Whether a process is gone, within ten seconds."""
    for _ in range(500):
        with suppress(FileNotFoundError):
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            if state != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


def test_what_it_started_ends_with_whoever_asked(place: tuple[Path, Path]) -> None:
    folder, _ = place
    (folder / "starts.py").write_text(
        "import os, subprocess\n"
        "print(os.getpid(), flush=True)\n"
        "subprocess.run('python -m sleeps', shell=True, check=False)\n"
    )
    (folder / "sleeps.py").write_text(
        "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(30)\n"
    )
    process = start(place, module="starts")
    assert process.stdout is not None
    numbers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.communicate()
    assert all(map(ended, numbers))


def test_a_server_ends_with_the_process_that_it_works_for() -> None:
    program = (
        "import time\n"
        "from pipeline.warm import warm\n"
        "with warm(['colorsys'], ()) as folder:\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(30)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.is_file():
            pytest.skip("this kernel does not list a process's children")
        servers = [int(number) for number in children.read_text().split()]
        process.kill()
    assert servers
    assert all(map(ended, servers))
