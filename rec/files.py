"""Files that are there whole or not at all."""

import os
from pathlib import Path


def replace_text(file: Path, text: str) -> None:
    """Gives a file another content: written beside, brought to the disk, renamed. Whoever reads sees old or new."""
    beside = file.with_name(file.name + ".tmp")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
