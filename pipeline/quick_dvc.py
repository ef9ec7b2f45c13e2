"""`dvc` that reads its files once and fast: `python -m pipeline.quick_dvc repro`.

For each stage that it is asked for, DVC parses lock, graph and settings anew, half a second each
time; here a text that was parsed is not parsed again. And to keep the comments of a file that it
changes, DVC parses its lock with the parser that is written in Python: two and a half seconds for
7,500 lines, after every stage. A lock has no comments, so libyaml does it. What is written reads
the same, and is the same bytes but for texts with quotes, line ends or emoji.

Who waits for the repository's lock looks again after a twentieth of a second, not half of one.
"""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from pipeline.storage import write_aside

Modify = Callable[..., AbstractContextManager[dict[str, Any]]]
Parse = Callable[..., Any]


class _Plain(SafeRepresenter):
    """As DVC writes its lock: a null is nothing at all, and mappings keep their order."""


_Plain.add_representer(
    type(None), lambda plain, _: plain.represent_scalar("tag:yaml.org,2002:null", "")
)
_Plain.add_representer(OrderedDict, SafeRepresenter.represent_dict)


def quick(modify: Modify) -> Modify:
    """DVC's `modify_yaml`, with a way of its own for locks."""

    @contextmanager
    def modified(path: str, fs: Any = None) -> Iterator[dict[str, Any]]:
        if Path(path).name != "dvc.lock":
            with modify(path, fs=fs) as data:
                yield data
            return
        data = (_yaml().load(Path(path)) if Path(path).exists() else None) or {}
        yield data
        text = dumped(data)
        write_aside(Path(path), lambda part: part.write_text(text, encoding="utf-8"))

    return modified


def remembering(parse: Parse) -> Parse:
    """DVC's `parse_yaml`, each text once; every caller gets values of its own."""
    known: dict[str, bytes] = {}

    def parsed(text: str, path: Any, typ: str = "safe") -> Any:
        if typ != "safe":  # with comments, to be changed
            return parse(text, path, typ)
        if text not in known:
            known[text] = pickle.dumps(parse(text, path, typ))
        return pickle.loads(known[text])  # our own, of a moment ago

    return parsed


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
    from dvc import dvcfile, lock
    from dvc.cli import main as dvc_main
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml as yaml_files

    if "--wait-for-lock" in sys.argv:
        lock.DEFAULT_TIMEOUT /= 10  # between looks it sleeps for a sixth of it
    dvcfile.modify_yaml = quick(dvcfile.modify_yaml)
    strictyaml.parse_yaml = yaml_files.parse_yaml = remembering(yaml_files.parse_yaml)
    return int(dvc_main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
