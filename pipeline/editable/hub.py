"""Models named by a hub: what can be neither there nor in the cache is told at once.

transformers would try again and again for half a minute, and tell of each try.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from pipeline.editable.naming import looks_like_path
from pipeline.errors import ModelError

_SECONDS = 5


def refuse_unfound(source: str) -> None:
    """Let a hub name pass that is in the cache, or of the form owner/name with the hub in reach.

    Raises:
        ModelError: it is a path to no folder, a single word, or the hub is out of reach.
    """
    if looks_like_path(source):
        raise _nowhere(source, "no such folder", "Give a folder made by save_pretrained, or a hub ")
    if cached(source):
        return
    if "/" not in source:  # all that a hub had under a single word lies under an owner by now
        found = "no folder of that name here, and no owner as a hub name has (owner/name)"
        raise _nowhere(source, found, "Give a folder made by save_pretrained, or a hub ")
    if not _in_reach(constants.ENDPOINT):
        found = f"no folder of that name here, none in the cache, and {constants.ENDPOINT} out of "
        raise _nowhere(source, f"{found}reach", "Give a folder, or go online and give a hub ")


def _nowhere(source: str, found: str, remedy: str) -> ModelError:
    return ModelError(
        expected=f"a folder with a model at {source}, or a model of that name on the hub",
        found=found,
        remedy=f"{remedy}name as owner/name (openai-community/gpt2).",
    )


def cached(source: str) -> Path | None:
    """The folder of a hub's model in the cache, if it is there."""
    try:
        found = try_to_load_from_cache(source, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def place_of(source: str) -> str | Path:
    """What to open a hub's model by: its folder in the cache where the hub is out of reach.

    Raises:
        ModelError: it is neither in the cache nor can it be had.
    """
    refuse_unfound(source)
    folder = cached(source)
    return source if folder is None or _in_reach(constants.ENDPOINT) else folder


def _in_reach(address: str) -> bool:
    """Whether anything answers there, be it with an error or a certificate that Python refuses."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        asked = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(asked, timeout=_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError) as error:
        return isinstance(getattr(error, "reason", error), ssl.SSLError)
    return True
