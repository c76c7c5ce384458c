"""One HTML page, whole in itself: it loads nothing."""

import json
from importlib.resources import files
from typing import Any


def page(explained: dict[str, Any]) -> str:
    """What `gather` found, as a page; nothing in it can end the element that holds the data."""
    template = files("rec.explain").joinpath("page.html").read_text(encoding="utf-8")
    data = json.dumps(explained, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return template.replace("/*DATA*/", data.replace("<", "\\u003c"))
