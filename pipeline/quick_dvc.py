"""`dvc`, with its lock file read and written by libyaml: `python -m pipeline.quick_dvc repro`.

To keep the comments of a file that it changes, DVC parses it with the parser that is written in
Python: two and a half seconds for a lock of 7,500 lines, after every stage. A lock has no comments.
What is written reads the same, and is the same bytes but for texts with quotes, line ends or emoji.
"""

from __future__ import annotations

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
    from dvc.cli import main as dvc_main

    dvcfile.modify_yaml = quick(dvcfile.modify_yaml)
    return int(dvc_main(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
