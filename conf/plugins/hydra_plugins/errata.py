"""Found by Hydra inside `dvc exp run` (hydra.plugins_path), which composes without our help."""

from pipeline.composition import register

register()
