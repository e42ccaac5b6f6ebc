"""Synthetic face pictures with exact labels: data for demonstrations and tests, and a supply of hard negatives."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from featherpress.compress.data.samples import Faces, Sample
from featherpress.compress.data.synthetic.backgrounds import develop, paint_background, paint_object
from featherpress.compress.data.synthetic.drawing import Array, Frame
from featherpress.compress.data.synthetic.portraits import cover, draw_look, paint_head
from featherpress.errors import UsageError

SMALLEST = 8.0
"""Pixels of the smallest face drawn; what is cut to LEAST_SIDE or less is ignored."""
LEAST_SIDE = 6.0
LEAST_VISIBLE = 0.4
DETAIL = 26.0
"""Heads lower than this many pixels are painted larger, then averaged down."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a head goes: its centre and height in pixels."""

    x: float
    y: float
    size: float
    face: bool


class SyntheticFaces:
    """Pictures of synthetic faces among things that are almost faces, each a pure function of (seed, index).

    Faces differ in size (8 pixels to most of the picture), pose, skin, hair, cover and light; boxes and landmarks are
    exact. Faces that are hidden or cut to less than 40 % are ignored.
    """

    def __init__(self, *, length: int, seed: int, size: tuple[int, int] = (320, 320)) -> None:
        if length < 1 or seed < 0 or min(size) < 32:
            raise UsageError(f"expected length >= 1, seed >= 0 and sides >= 32, got {length}, {seed} and {size}")
        self.length, self.seed, self.size = length, seed, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        """Paint one picture."""
        if not -self.length <= index < self.length:
            raise IndexError(f"expected an index below {self.length}, got {index}")
        index %= self.length
        random = np.random.default_rng([self.seed, index])
        height, width = self.size
        picture = paint_background(random, height, width)
        owner = np.zeros((height, width), dtype=np.int16)
        outlines: list[tuple[int, Array, Array]] = []
        for number, place in enumerate(_draw_places(random, height, width), start=1):
            painted = _paint_place(random, picture, owner, place, number)
            if painted is not None:
                outlines.append((number, *painted))
        faces = _label(outlines, owner)
        return Sample(image=develop(random, picture), faces=faces, name=self.name(index))

    def name(self, index: int, /) -> str:
        """Name one picture by what makes it."""
        return f"synthetic-{self.seed}-{index:06d}"


def _draw_places(random: np.random.Generator, height: int, width: int) -> list[_Place]:
    """Choose where faces and other things go, the small ones behind; few overlap."""
    largest = 0.8 * min(height, width)
    crowd = random.random() < 0.15
    faces = random.integers(5, 13) if crowd else random.choice([0, 1, 1, 2, 2, 3, 4])
    others = random.choice([0, 0, 1, 1, 2, 3])
    limit = max(largest / 4, SMALLEST * 1.5) if crowd else largest
    wanted = sorted(
        ((math.exp(random.uniform(math.log(SMALLEST), math.log(limit))), n < faces) for n in range(faces + others)),
        reverse=True,
    )
    placed: list[_Place] = []
    for size, face in wanted:
        for _ in range(8):
            candidate = _Place(random.uniform(0, width), random.uniform(0, height), size, bool(face))
            if all(_apart(candidate, other) for other in placed):
                placed.append(candidate)
                break
    return placed[::-1]


def _apart(small: _Place, large: _Place) -> bool:
    """Tell whether two heads leave each other room, the large one's shoulders included."""
    across, down = abs(small.x - large.x), small.y - large.y
    beside = across > 0.55 * (small.size + large.size)
    above = down < -0.6 * (small.size + large.size)
    return beside or above or down > 0.6 * small.size + 2.9 * large.size


def _paint_place(
    random: np.random.Generator, picture: Array, owner: npt.NDArray[np.int16], place: _Place, number: int
) -> tuple[Array, Array] | None:
    """Paint one head or thing; for a face, return its outline (64, 2) and landmarks (5, 2) in pixels."""
    kind = "face" if place.face else random.choice(["blank", "scrambled", "object", "object"])
    look = draw_look(random, scrambled=kind == "scrambled")
    roll = random.normal(0, 0.2) if random.random() < 0.85 else random.uniform(-0.8, 0.8)
    reach = 1 + 2.9 * abs(math.sin(roll))
    top, left = max(int(place.y - 1.3 * place.size), 0), max(int(place.x - reach * place.size), 0)
    rows = slice(top, int(place.y + 2.9 * place.size) + 1)
    columns = slice(left, int(place.x + reach * place.size) + 1)
    fine = max(math.ceil(DETAIL / place.size), 1)
    area, owned = picture[:, rows, columns], owner[rows, columns]
    frame = Frame(
        area.repeat(fine, axis=1).repeat(fine, axis=2) if fine > 1 else area,
        owned.repeat(fine, axis=0).repeat(fine, axis=1) if fine > 1 else owned,
        centre=((place.x - left) * fine, (place.y - top) * fine),
        scale=place.size / 1.88 * fine,
        roll=roll,
        finest=0.25 * fine * fine,
    )
    if kind == "object":
        paint_object(frame, random)
    else:
        paint_head(frame, random, look, owner=number if kind == "face" else 0, blank=kind == "blank")
        if random.random() < 0.25:
            cover(frame, random, look)
    if fine > 1:
        area[:] = _reduced(frame.pixels, fine)
        owned[:] = frame.owner[fine // 2 :: fine, fine // 2 :: fine]
    if kind != "face":
        return None
    corner = np.array([left, top], dtype=np.float32)
    size = np.float32(fine)
    return frame.to_pixels(look.head.outline()) / size + corner, frame.to_pixels(look.landmarks) / size + corner


def _reduced(pixels: Array, times: int) -> Array:
    """Average blocks of times x times pixels; slices are added, which is faster than NumPy's mean over two axes."""
    rows = sum((pixels[:, part::times] for part in range(1, times)), start=pixels[:, ::times])
    total = sum((rows[:, :, part::times] for part in range(1, times)), start=rows[:, :, ::times])
    return total * np.float32(1 / times**2)


def _label(outlines: list[tuple[int, Array, Array]], owner: npt.NDArray[np.int16]) -> Faces:
    """Box the part of every outline that lies in the picture, and ignore faces of which too little is seen."""
    height, width = owner.shape
    boxes: list[Array] = []
    landmarks: list[Array] = []
    labelled: list[bool] = []
    ignored: list[bool] = []
    for number, outline, points in outlines:
        low = np.clip(outline.min(axis=0), 0, [width, height])
        high = np.clip(outline.max(axis=0), 0, [width, height])
        seen = int((owner == number).sum())
        if not seen or (high <= low).any():
            continue
        whole = bool(((points >= low) & (points <= high)).all())
        small = bool((high - low).min() <= LEAST_SIDE)
        hidden = seen < LEAST_VISIBLE * _area(outline)
        boxes.append(np.concatenate([low, high]))
        landmarks.append(points.ravel() * whole)
        labelled.append(whole)
        ignored.append(small or hidden)
    return Faces(
        boxes=torch.from_numpy(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
        landmarks=torch.from_numpy(np.array(landmarks, dtype=np.float32).reshape(-1, 10)),
        has_landmarks=torch.tensor(labelled, dtype=torch.bool),
        ignored=torch.tensor(ignored, dtype=torch.bool),
    )


def _area(outline: Array) -> float:
    """Area of a polygon by the shoelace formula."""
    x, y = outline[:, 0], outline[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
