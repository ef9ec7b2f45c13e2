"""The house's order: which way imports run, what stages declare, and how long code gets."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import yaml
from imports import ROOT, closure, file_of, imports, modules

from pipeline.config import read_params

# From the bottom up: a module imports from earlier lines only, or from its own package.
LAYERS = (
    "errors editing",  # the package's own file is empty
    "storage progress mentions",
    "config records tables names wordings",
    "ranges wordings_people",
    "world",
    "passages models editing.updates",
    "measures tasks",
    "editing.patch",
    "editing.patch_file editing.aggregate editing.pooling",
    "editing.memory editing.normaliser editing.checkpoints",
    "stack",
    "editing.groups",
    "editing.locate",
    "editing.moments editing.sought editing.conflicts editing.depths",
    "editing.summing editing.targets",
    "editing.editor editing.gradients editing.rules",
    "editing.draws editing.rowwise",
    "editing.metalearn editing.slots",
    "editing.descent editing.seeker",
    "editing.learned",
    "editors",
    "generation mixing questions",
    "answers",
    "tracing",
    "statements",
    "train_base labels audit scoring",
    "protocols",
    # Tables to numbers, without torch.
    "bootstrap metrics_text",
    "percase",
    "metrics",
    "studies places",
    "results composition warm quick_dvc",
    "lanes standby",
    "reporting tracking",
    "readme settings",
    "editable",
    "serving",
    "commands",
    "cli",
    "__main__",
)
RANKS = {name: rank for rank, line in enumerate(LAYERS) for name in line.split()}
WITHOUT_TORCH = (
    "metrics",
    "metrics_text",
    "reporting",
    "composition",
    "config",
    "results",
    "tracking",
    "readme",
)
MOST_LINES, MOST_FUNCTION_LINES = 300, 50

LIBRARY = [module for module in modules("pipeline") if module != "pipeline"]


def part(module: str) -> str:
    """The name of a module, or of the package that it lies in, below `pipeline`.

    What lies in `editing` has an order of its own.
    """
    names = module.split(".")[1:]
    return ".".join(names[:2] if names[0] == "editing" else names[:1])


@pytest.mark.parametrize("module", LIBRARY)
def test_imports_run_one_way(module: str) -> None:
    assert part(module) in RANKS, f"give {part(module)} a place in LAYERS"
    for other in imports(module):
        assert not other.startswith("stages"), f"{module} imports {other}"
        if other.startswith("pipeline.") and part(other) != part(module):
            assert RANKS[part(other)] < RANKS[part(module)], f"{module} imports {other}"


def test_editors_never_import_each_other() -> None:
    editors = [module for module in LIBRARY if module.startswith("pipeline.editors.")]
    for module in editors:
        assert not set(editors) & (closure([module]) - {module})


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_tables_and_reports_need_no_torch(name: str) -> None:
    loaded = closure(module for module in LIBRARY if part(module) == name)
    assert not {"torch", "transformers"} & loaded


def test_only_tracking_imports_mlflow() -> None:
    assert [m for m in LIBRARY if "mlflow" in imports(m)] == ["pipeline.tracking"]


def stages() -> dict[str, set[str]]:
    """Each stage of the graph as DVC resolves it, with the paths that it depends on."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        return {
            stage.addressing: {dep.def_path for dep in stage.deps} for stage in repo.index.stages
        }


@pytest.fixture(scope="module")
def declared() -> dict[str, set[str]]:
    return stages()


def needed(stage: str) -> set[str]:
    """The files of all modules that a stage loads."""
    name, _, item = stage.partition("@")
    roots = ["stages", f"stages.{name}"]
    if name in ("prepare", "label"):
        roots.append(f"pipeline.tasks.{item}")
    elif name in ("fit", "evaluate"):
        items = read_params(ROOT / "params.yaml")["fits" if name == "fit" else "runs"]
        alg = items[item]["alg"]
        roots.append(f"pipeline.editors.{alg}")
    ours = {m for m in closure(roots) if m.split(".")[0] in ("pipeline", "stages")}
    return {file_of(module) for module in ours - {"pipeline"}}


def covers(path: str, file: str) -> bool:
    """Whether a dependency is this file or a folder around it."""
    return file == path or file.startswith(f"{path}/")


def test_every_stage_declares_every_module_that_it_loads(declared: dict[str, set[str]]) -> None:
    missing = {
        stage: lacking
        for stage, paths in declared.items()
        if (lacking := {f for f in needed(stage) if not any(covers(p, f) for p in paths)})
    }
    assert not missing


def test_no_stage_declares_a_module_that_it_never_loads(declared: dict[str, set[str]]) -> None:
    """Of stages with several items: that none of them loads, nor any editor not in this record."""
    paths, files = defaultdict(set), defaultdict(set)
    for stage, deps in declared.items():
        name = stage.partition("@")[0]
        paths[name] |= {dep for dep in deps if re.match(r"(pipeline|stages)/", dep)}
        files[name] |= needed(stage)
    for name in ("fit", "evaluate"):
        found = closure(m for m in LIBRARY if m.startswith("pipeline.editors."))
        files[name] |= {file_of(module) for module in found if module.startswith("pipeline.")}
    idle = {
        name: extra
        for name, some in paths.items()
        if (extra := {p for p in some if not any(covers(p, f) for f in files[name])})
    }
    assert not idle


def test_the_tracing_stage_declares_what_it_loads_and_no_more() -> None:
    """The committed record traces nothing, so the graph above lacks it."""
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["trace"]["do"]
    paths = {dep for dep in stage["deps"] if re.match(r"(pipeline|stages)/", dep)}
    files = needed("trace")
    assert not {file for file in files if not any(covers(path, file) for path in paths)}
    assert not {path for path in paths if not any(covers(path, file) for file in files)}


def test_the_package_itself_is_only_a_name() -> None:
    """So that no stage needs to declare it: `Editable` is loaded when somebody asks for it."""
    code = "import sys, pipeline; sys.exit(any(m.startswith('pipeline.') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert imports("pipeline") <= {"typing", "importlib"}


def test_no_stage_loads_what_is_for_models_of_ones_own() -> None:
    loaded = closure(modules("stages"))
    assert not [m for m in loaded if m.startswith(("pipeline.editable", "pipeline.serving"))]


def python_files() -> list[Path]:
    return [ROOT / file_of(m) for package in ("pipeline", "stages") for m in modules(package)]


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_code_comes_in_small_pieces(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < MOST_FUNCTION_LINES, node.name
