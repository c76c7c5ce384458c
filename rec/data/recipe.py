"""Recipes: options of `prepare` kept in a YAML file, under the names they have on the command line."""

import dataclasses
import datetime
import difflib
from pathlib import Path
from typing import Any

from rec.config.load import read_values
from rec.data.options import Options
from rec.errors import ConfigError


def read(file: Path) -> dict[str, Any]:
    """Field of `Options` -> value. ConfigError for a key that is no option, with the nearest one that is."""
    known = [field.name.replace("_", "-") for field in dataclasses.fields(Options)]
    values = read_values(file)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            remedy = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(known)}"
            raise ConfigError(f"{file} has the unknown key '{key}'; {remedy}")
    # YAML reads 2013-01-01 as a date; the option is a text
    return {
        key.replace("-", "_"): value.isoformat() if isinstance(value, datetime.date) else value
        for key, value in values.items()
    }
