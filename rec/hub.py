"""Where pretrained parts come from: a folder, or the hub. What cannot be had is said at once, in one sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError

from rec.errors import ConfigError

T = TypeVar("T")

OURS = "models/"
"""Where this project's recipes put pretrained parts; a name below it is never one of the hub."""
RECIPES = ("models/minilm", "models/smollm2")
"""What `make` makes, by these names."""
PATIENCE = 5.0
"""Seconds for the hub to answer at all. Its own client tries six times, and says nothing else for half a minute."""


def from_source(reader: Callable[..., T], source: str, *, key: str, remedy: str, **arguments: Any) -> T:
    """What one of Transformers' `from_pretrained` makes of a folder, or of a name of the hub.

    Args:
        reader: called with the source.
        source: what exists here is a path; so is what `is_path` says, and then it is missing.
        key: of the configuration, or option of the command line, that names the source.
        remedy: what else the user can do, after a semicolon.
        arguments: for the reader, too.

    Raises:
        ConfigError: the folder is missing, the hub has no such name or cannot be reached, or what is there is damaged.
    """
    unreached = ""
    if not Path(source).exists():
        if is_path(source):
            recipe = source.rstrip("/")
            made = f"make it with `make {recipe}`, or " if recipe in RECIPES else ""
            raise ConfigError(f"{key} is '{source}', a folder that is not there; {made}{remedy}")
        unreached = _unreached(source)
        if unreached:
            arguments["local_files_only"] = True
    try:
        return reader(source, **arguments)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = unreached and f"it was not downloaded before, and the hub cannot be reached: {unreached}"
        reason = reason or str(error).strip().splitlines()[0]
        raise ConfigError(f"{key} is '{source}', which cannot be loaded ({reason}); {remedy}") from None


def is_path(source: str) -> bool:
    """Whether a source can only be a path: it lies below `models/`, or the hub has no such names.

    >>> [is_path(name) for name in ("models/minilm", "./tiny", "/data/tiny", "a/b/c")]
    [True, True, True, True]
    >>> [is_path(name) for name in ("gpt2", "Qwen/Qwen2-0.5B")]
    [False, False]
    """
    return source.startswith(OURS) or not re.fullmatch(r"[A-Za-z0-9_][\w.-]*(/[\w.-]+)?", source)


def _unreached(source: str) -> str:
    """Why the hub does not answer; empty where it does, whatever it says of the source."""
    try:
        get_hf_file_metadata(hf_hub_url(source, "config.json"), timeout=PATIENCE)
    except HfHubHTTPError:  # an answer, and Transformers' own sentence says more of it
        return ""
    except Exception as error:  # which of them depends on what its client speaks HTTP with
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""
