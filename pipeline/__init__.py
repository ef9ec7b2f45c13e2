"""Errata: change what a trained model says about one thing, and measure what else changed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.editable import Editable

__all__ = ["Editable"]


def __getattr__(name: str) -> Any:
    """Load `Editable` when it is asked for: stages and the command line's quick answers never do.

    By its name as text, so that the package stays a name and no more to those who read imports.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.editable"), name)
