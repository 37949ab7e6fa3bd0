"""Which pictures of a set show the same part: what is learned and what is tested must not share one.

The magnetic tiles were photographed one after the other, each in up to six exposures; the number in the name
is the frame's. Frames that follow each other closely are one tile: the numbers within a tile lie 10 to 120
apart, from tile to tile mostly thousands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

CLOSE = 200  # frames
NUMBER = re.compile(r"exp\d+_num_(\d+)")


def parts_shown(files: Sequence[Path]) -> dict[Path, int]:
    """A number for the part in each picture: the frames of one magnetic tile share it."""
    numbers = {file: NUMBER.match(file.stem) for file in files}
    frames = sorted((int(found[1]), file) for file, found in numbers.items() if found)
    part_of, latest = {file: file for file in files}, None
    for number, file in frames:
        if latest is not None and number - latest[0] <= CLOSE:
            part_of[file] = part_of[latest[1]]
        latest = (number, file)
    known: dict[Path, int] = {}
    return {file: known.setdefault(part_of[file], len(known)) for file in files}
