"""Synthetic face pictures with exact labels: data for demonstrations and tests."""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from featherpress.compress.data.samples import Objects, Sample
from featherpress.compress.data.synthetic.drawing import Array, Frame
from featherpress.compress.data.synthetic.heads import paint_ball, paint_cover, paint_head
from featherpress.compress.data.synthetic.scenes import develop, paint_scene
from featherpress.errors import UsageError

_SMALLEST = 10.0
"""Height in pixels of the smallest face drawn; a face cut to _LEAST_SIDE or less is ignored."""
_LEAST_SIDE = 6.0
_LEAST_VISIBLE = 0.4


class _Place(NamedTuple):
    """Where a head goes: its height and centre in pixels."""

    size: float
    x: float
    y: float
    face: bool


class _Face(NamedTuple):
    """A face as painted: corners of its box (2, 2), area and landmarks (5, 2) in pixels."""

    number: int
    corners: Array
    area: float
    landmarks: Array


class SyntheticFaces:
    """Pictures of synthetic faces among things that are almost faces, each a pure function of (seed, index).

    Faces differ in size (10 pixels to most of the picture), pose, skin, hair, cover and light; boxes and landmarks are
    exact. Faces that are hidden or cut to less than 40% are ignored.
    """

    def __init__(self, *, length: int, seed: int, size: tuple[int, int] = (320, 320)) -> None:
        if length < 1 or seed < 0 or min(size) < 32:
            raise UsageError(f"expected length >= 1, seed >= 0 and sides >= 32, got {length}, {seed} and {size}")
        self.length, self.seed, self.size = length, seed, size

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        """Paint one picture."""
        if not 0 <= index < self.length:
            raise IndexError(f"expected an index below {self.length}, got {index}")
        random = np.random.default_rng([self.seed, index])
        scene = paint_scene(random, *self.size)
        places = enumerate(_draw_places(random, *self.size), start=1)
        painted = [_paint_place(random, scene, place, number) for number, place in places]
        faces = _label([face for face in painted if face], scene.owner)
        return Sample(image=develop(random, scene.pixels), objects=faces, name=self.name(index))

    def name(self, index: int, /) -> str:
        """Name one picture by what makes it."""
        return f"synthetic-{self.seed}-{index:06d}"


def _draw_places(random: np.random.Generator, height: int, width: int) -> list[_Place]:
    """Choose where faces and other things go, the small ones behind; few overlap."""
    largest, crowd = 0.8 * min(height, width), random.random() < 0.15
    faces = random.integers(5, 13) if crowd else random.choice([0, 1, 1, 2, 2, 3, 4])
    limit = max(largest / 4, _SMALLEST * 1.5) if crowd else largest
    count = faces + random.choice([0, 0, 1, 1, 2])
    sizes = np.exp(random.uniform(math.log(_SMALLEST), math.log(limit), count)).tolist()
    placed: list[_Place] = []
    for size, face in sorted(zip(sizes, np.arange(count) < faces, strict=True), reverse=True):
        for _ in range(8):
            candidate = _Place(size, random.uniform(0, width), random.uniform(0, height), bool(face))
            if all(_apart(candidate, other) for other in placed):
                placed.append(candidate)
                break
    return placed[::-1]


def _apart(small: _Place, large: _Place) -> bool:
    """Tell whether two heads leave each other room, the large one's shoulders included."""
    down, both = small.y - large.y, small.size + large.size
    return abs(small.x - large.x) > 0.55 * both or down < -0.6 * both or down > 0.6 * small.size + 2.9 * large.size


def _paint_place(random: np.random.Generator, scene: Frame, place: _Place, number: int) -> _Face | None:
    """Paint one head or thing, and return it where it is a face."""
    roll = float(random.normal(0, 0.2) if random.random() < 0.85 else random.uniform(-0.8, 0.8))
    frame = replace(scene, centre=(place.x, place.y), scale=place.size / 2, roll=roll)
    kind = "face" if place.face else random.choice(["blank", "scrambled", "ball", "ball", "ball"])
    if kind == "ball":
        paint_ball(frame, random)
        return None
    width = random.uniform(0.68, 0.8)
    landmarks = paint_head(frame, random, width, owner=number if place.face else 0, kind=kind)
    if place.face and random.random() < 0.15:
        paint_cover(frame, random, landmarks)
    half = np.hypot(np.array([width, 1]) * math.cos(roll), np.array([1, width]) * math.sin(roll)) * frame.scale
    corners = frame.to_pixels([(0, 0)]) + np.stack([-half, half])
    face = _Face(number, corners, math.pi * width * frame.scale**2, frame.to_pixels(landmarks))
    return face if place.face else None


def _label(faces: list[_Face], owner: npt.NDArray[np.int16]) -> Objects:
    """Box the part of every face that lies in the picture, and ignore faces of which too little is seen."""
    rows = []
    for face in faces:
        low, high = np.clip(face.corners, 0, owner.shape[::-1])
        seen = int((owner == face.number).sum())
        if seen and (high > low).all():
            whole = bool(((face.landmarks >= low) & (face.landmarks <= high)).all())
            ignored = (high - low).min() <= _LEAST_SIDE or seen < _LEAST_VISIBLE * face.area
            rows.append([*low, *high, *face.landmarks.ravel() * whole, whole, ignored])
    table = torch.tensor(np.array(rows, dtype=np.float32).reshape(-1, 16))
    labelled, hidden = table[:, 14:].T > 0
    return Objects(
        boxes=table[:, :4],
        landmarks=table[:, 4:14],
        has_landmarks=labelled,
        ignored=hidden,
        labels=torch.zeros(len(table), dtype=torch.int64),
    )
