"""`dvc` that reads its files once and fast: `python -m pipeline.quick_dvc repro`.

For each stage that it is asked for, DVC parses lock, graph and settings anew, half a second each
time; here a text that was parsed is not parsed again, nor by later calls where `PARSED` names a
folder to keep it in. And to keep the comments of a file that it
changes, DVC parses its lock with the parser that is written in Python: two and a half seconds for
7,500 lines, after every stage. A lock has no comments, so libyaml does it, and of the lock only the
stages that changed. What is written reads the same, and is the same bytes but for texts with
quotes, line ends or emoji.

For each setting of each stage DVC walks through all settings there are; here it goes there
straight. Who waits for the repository's lock looks again after a twentieth of a second, not half of
one.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import SafeRepresenter

from pipeline.storage import write_aside

Modify = Callable[..., AbstractContextManager[dict[str, Any]]]
Parse = Callable[..., Any]
PARSED = "ERRATA_PARSED"  # the variable that names a folder of our own


class _Plain(SafeRepresenter):
    """As DVC writes its lock: a null is nothing at all, and mappings keep their order."""


_Plain.add_representer(
    type(None), lambda plain, _: plain.represent_scalar("tag:yaml.org,2002:null", "")
)
_Plain.add_representer(OrderedDict, SafeRepresenter.represent_dict)


class Parsed:
    """What texts say, pickled so that whoever asks gets a value of his own.

    Args:
        folder: where it is kept for later calls; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._known: dict[str, bytes] = {}

    def value(self, text: str, parse: Callable[[str], Any]) -> Any:
        """What `parse` makes of a text, now or when it was asked before."""
        if text not in self._known:
            found = self._kept(text)
            if found is None:
                found = pickle.dumps(parse(text))
                self._keep(text, found)
            self._known[text] = found
        return pickle.loads(self._known[text])  # our own, of a moment ago

    def _kept(self, text: str) -> bytes | None:
        with suppress(OSError):
            return None if self.folder is None else self._place(text).read_bytes()
        return None

    def _keep(self, text: str, value: bytes) -> None:
        if self.folder is not None:
            part = self.folder / str(os.getpid())  # another call may be at the same text
            with suppress(OSError):
                part.write_bytes(value)
                part.replace(self._place(text))

    def _place(self, text: str) -> Path:
        assert self.folder is not None
        return self.folder / hashlib.sha256(text.encode()).hexdigest()


class Lock:
    """Locks, stage by stage: what was read or written once is neither parsed nor written again."""

    def __init__(self, parsed: Parsed | None = None) -> None:
        self.parsed = parsed or Parsed()

    def read(self, text: str) -> dict[str, Any]:
        """What a lock says."""
        blocks = _blocks(text)
        known = [self.parsed.value(block, _stage) for block in blocks or ()]
        if blocks is None or not all(known):
            return _whole(text)
        stages = {name: value for stage in known for name, value in stage.items()}
        if len(stages) < len(blocks):  # to be refused, like any mapping that says a key twice
            return _whole(text)
        return {"schema": "2.0", "stages": stages}

    def written(self, data: Mapping[str, Any], before: str) -> str:
        """The text of `data`, given the one that it came from."""
        blocks = _blocks(before)
        if blocks is None or list(data) != ["schema", "stages"]:
            return dumped(data)
        known = {}
        for block in blocks:
            for name, value in self.parsed.value(block, _stage).items():
                known[name] = repr(value), block
        parts = []
        for name, value in data["stages"].items():
            shown, block = known.get(name, ("", ""))
            if shown != repr(value):  # 1 is not 1.0
                block = dumped({"stages": {name: value}}).removeprefix("stages:\n")
            parts.append(block)
        return "".join([_HEAD, *parts])


def _stage(block: str) -> dict[str, Any]:
    """What a block says of one stage; nothing where it is none by itself, as a torn lock has it."""
    try:
        stage = _yaml().load(block)
    except YAMLError:  # or of use only together with others
        return {}
    return stage if isinstance(stage, dict) and len(stage) == 1 else {}


def _blocks(text: str) -> list[str] | None:
    """A lock's stages, each as it stands there; None where it does not look like one."""
    if not text.startswith(_HEAD):
        return None
    first, *blocks = _BLOCK.split(text[len(_HEAD) :])
    return None if first or not blocks else blocks


def _whole(text: str) -> dict[str, Any]:
    found: dict[str, Any] = _yaml().load(text) or {}
    return found


_HEAD = "schema: '2.0'\nstages:\n"
_BLOCK = re.compile(r"(?m)^(?=  [^\s#-])")  # where a stage begins; all else of it is further in


def quick(modify: Modify, lock: Lock) -> Modify:
    """DVC's `modify_yaml`, with a way of its own for locks."""

    @contextmanager
    def modified(path: str, fs: Any = None) -> Iterator[dict[str, Any]]:
        place = Path(path)
        if place.name != "dvc.lock":
            with modify(path, fs=fs) as data:
                yield data
            return
        before = place.read_text(encoding="utf-8") if place.exists() else ""
        data = lock.read(before)
        yield data
        text = lock.written(data, before)
        write_aside(place, lambda part: part.write_text(text, encoding="utf-8"))

    return modified


def remembering(parse: Parse, lock: Lock) -> Parse:
    """DVC's `parse_yaml`, each text once; every caller gets values of its own."""

    def parsed(text: str, path: Any, typ: str = "safe") -> Any:
        if typ != "safe":  # with comments, to be changed
            return parse(text, path, typ)
        if Path(path).name == "dvc.lock":
            with suppress(YAMLError):  # DVC shall say itself what is wrong
                return lock.read(text)
        return lock.parsed.value(text, lambda text: parse(text, path, typ))

    return parsed


def straight(get: Callable[..., Any]) -> Callable[..., Any]:
    """`dpath.get` that looks where a key is before it looks everywhere."""

    def got(config: Any, key: str, separator: str = "/") -> Any:
        found = config
        for part in key.split(separator):
            if not isinstance(found, Mapping) or part not in found:
                return get(config, key, separator=separator)
            found = found[part]
        return found

    return got


def dumped(data: Mapping[str, Any]) -> str:
    """A lock's text, as DVC writes it."""
    stream = StringIO()
    _yaml().dump(data, stream)
    return stream.getvalue().replace(": \n", ":\n")  # libyaml's way to write an empty scalar


def _yaml() -> YAML:
    yaml = YAML(typ="safe")  # by libyaml where ruamel.yaml has it
    yaml.Representer = _Plain
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def main() -> int:
    """Run DVC with the words of the command line."""
    from dvc import dvcfile
    from dvc import lock as repository
    from dvc.cli import main as dvc_main
    from dvc.dependency import param
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml as yaml_files

    if "--wait-for-lock" in sys.argv:
        repository.DEFAULT_TIMEOUT /= 10  # between looks it sleeps for a sixth of it
    parsed = Parsed(Path(os.environ[PARSED]) if os.environ.get(PARSED) else None)
    lock = Lock(parsed)
    dvcfile.modify_yaml = quick(dvcfile.modify_yaml, lock)
    strictyaml.parse_yaml = yaml_files.parse_yaml = remembering(yaml_files.parse_yaml, lock)
    param.dpath = SimpleNamespace(get=straight(param.dpath.get), search=param.dpath.search)
    return int(dvc_main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
