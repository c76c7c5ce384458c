"""What disks do to checkpoints."""

import os
import random
from pathlib import Path


def hurt(folder: Path, dice: random.Random) -> str:
    """Flips a bit of a file, cuts it off somewhere, or removes it; what was done."""
    file = dice.choice(sorted(folder.iterdir()))
    size = file.stat().st_size
    match dice.choice(("flip", "cut", "remove")):
        case "flip":
            bit = dice.randrange(8 * size)
            flip(file, bit)
            return f"bit {bit} of {file.name} flipped"
        case "cut":
            left = dice.randrange(size)
            os.truncate(file, left)
            return f"{file.name} cut off after {left} of {size} bytes"
        case _:
            file.unlink()
            return f"{file.name} removed"


def flip(file: Path, bit: int) -> None:
    """Bit 0 is the lowest of the first byte."""
    with file.open("r+b") as content:
        content.seek(bit // 8)
        (byte,) = content.read(1)
        content.seek(bit // 8)
        content.write(bytes([byte ^ 1 << bit % 8]))
