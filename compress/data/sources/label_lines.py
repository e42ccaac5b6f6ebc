"""The lines of a label file, read one by one, so that an error can say where it is."""

import math
from pathlib import Path

from featherpress.compress.data.sources.image_files import is_inside_name
from featherpress.errors import DataError
from featherpress.files import read_bytes

BOX_FIELDS = 10
"""x, y, w, h, blur, expression, illumination, invalid, occlusion, pose."""


class LabelLines:
    """The lines of a label file and where reading stands; UTF-8 with or without a mark, else Latin-1."""

    def __init__(self, path: Path) -> None:
        self.path, self.number, data = path, 0, read_bytes(path, pipes=False)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
        # Not splitlines: Latin-1 names may hold characters that it takes for line ends.
        self.lines = tuple(line.strip() for line in text.split("\n"))

    def error(self, message: str) -> DataError:
        """Return an error that says what was expected, and where."""
        return DataError(f"{self.path}, line {self.number}: expected {message}")

    def next(self) -> str | None:
        """Take the next line that is not blank."""
        while self.number < len(self.lines):
            self.number += 1
            if line := self.lines[self.number - 1]:
                return line
        return None

    def name(self, line: str) -> str:
        """Check that a line is the path of an image inside the image folder."""
        if len(line.split()) == BOX_FIELDS and numbers_of(line):
            raise self.error("an image, got one more face than the number above says")
        if not is_inside_name(line):
            raise self.error(f"the path of an image inside the image folder, got {line!r}")
        return line

    def count(self, name: str) -> int:
        """Take the number of faces of an image."""
        line = self.next()
        if line is None or not line.isascii() or not line.isdigit() or len(line) > 9:
            raise self.error(f"the number of faces in {name}, got {shown(line)}")
        return int(line)

    def parse(self, line: str | None, name: str, lengths: set[int]) -> list[float]:
        """Check that a line is a face: so many finite numbers, and a size that is not negative."""
        if line is None:
            raise self.error(f"one more face in {name}, got {shown(line)}")
        numbers = numbers_of(line)
        if len(numbers) not in lengths:
            wanted = " or ".join(str(length) for length in sorted(lengths))
            raise self.error(f"{wanted} numbers for a face in {name}, got {shown(line)}")
        if min(numbers[2:4]) < 0:
            raise self.error(f"a width and height of at least 0 for a face in {name}, got {shown(line)}")
        return numbers

    def skip_zeros(self) -> None:
        """Pass the line of zeros that WIDER FACE writes for an image without faces."""
        before = self.number
        numbers = numbers_of(self.next() or "")
        if len(numbers) != BOX_FIELDS or any(numbers):
            self.number = before


def numbers_of(line: str) -> list[float]:
    """Read finite numbers, or nothing where one is not."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def shown(line: str | None) -> str:
    """Quote a line, cut to what a sentence can hold."""
    return "the end of the file" if line is None else repr(line if len(line) <= 60 else line[:57] + "...")
