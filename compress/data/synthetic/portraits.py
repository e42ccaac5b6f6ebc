"""Synthetic heads: one look drawn by chance, painted part by part into a frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from featherpress.compress.data.synthetic.drawing import Array, Colour, Frame, Shape, muted, tone


def _palette(*colours: tuple[int, int, int]) -> Array:
    return np.array(colours, dtype=np.float32) / np.float32(255)


SKINS = _palette(
    (255, 224, 200), (241, 194, 165), (224, 172, 128), (198, 134, 90), (160, 104, 66), (122, 76, 48), (86, 52, 34)
)
HAIRS = _palette(
    (22, 18, 16),
    (46, 32, 24),
    (84, 56, 36),
    (130, 88, 50),
    (202, 164, 98),
    (150, 64, 30),
    (150, 148, 146),
    (232, 230, 226),
)
MASKS = _palette((150, 200, 225), (245, 245, 245), (25, 25, 28), (120, 170, 150), (230, 180, 190))
IRISES = _palette((50, 30, 18), (80, 52, 30), (70, 98, 120), (76, 100, 66))
WHITE, BLACK = _palette((250, 248, 246), (12, 10, 12))
RED = _palette((190, 50, 60))[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One person: colours, proportions, and where the features lie (frame units; image-left first)."""

    skin: Colour
    hair: Colour
    iris: Colour
    cloth: Colour
    head: Shape
    yaw: float
    light: tuple[float, float]
    landmarks: Array
    haircut: str
    smile: float
    openness: float
    beard: float
    glasses: bool

    @property
    def near(self) -> float:
        """The side of the head turned away from the viewer's gaze: -1 left, 1 right, where an ear is seen."""
        return -1.0 if self.yaw > 0 else 1.0

    def feature(self, row: int) -> tuple[float, float]:
        """Where a landmark lies."""
        return float(self.landmarks[row, 0]), float(self.landmarks[row, 1])


def draw_look(random: np.random.Generator, *, scrambled: bool = False) -> Look:
    """Draw a person; scrambled features are those of no face."""
    skin = _mixed(random, SKINS)
    hair = HAIRS[random.integers(3 if random.random() < 0.6 else len(HAIRS))]
    yaw = float(np.clip(random.normal(0, 0.4), -0.9, 0.9))
    half_width = random.uniform(0.7, 0.82)
    return Look(
        skin=skin,
        hair=tone(hair, random.uniform(0.8, 1.2)),
        iris=IRISES[random.integers(len(IRISES))],
        cloth=muted(random),
        head=Shape(x=0, y=0.06, rx=half_width, ry=0.94, taper=random.uniform(0.06, 0.16)),
        yaw=yaw,
        light=(random.uniform(-0.25, 0.25), random.uniform(-0.18, 0.05)),
        landmarks=_scrambled(random, half_width) if scrambled else _features(random, half_width, yaw),
        haircut=str(random.choice(["short", "short", "long", "bob", "bald", "hat"])),
        smile=random.uniform(-0.25, 0.9),
        openness=random.random() * 2 - 1,
        beard=random.uniform(0.25, 0.85) if random.random() < 0.25 else 0.0,
        glasses=bool(random.random() < 0.2),
    )


def paint_head(frame: Frame, random: np.random.Generator, look: Look, *, owner: int, blank: bool = False) -> None:
    """Paint a person from back to front; a blank head has no features."""
    _paint_back(frame, look)
    _paint_ears(frame, look)
    shading = (0.28, look.light[0], look.light[1])
    frame.paint(look.head, look.skin, shading=shading, owner=owner)
    if not blank:
        _paint_beard(frame, look)
        for eye in (0, 1):
            _paint_eye(frame, look, eye)
        _paint_nose(frame, look)
        _paint_mouth(frame, look)
    _paint_hair(frame, random, look)
    if look.glasses and not blank:
        _paint_glasses(frame, look, tint=0.1)


def cover(frame: Frame, random: np.random.Generator, look: Look) -> None:
    """Hide a part of a face: sunglasses, a mask, a hand or a bar; a hand or bar takes what it hides from the face."""
    kind = random.choice(["sunglasses", "mask", "hand", "bar"])
    if kind == "sunglasses":
        _paint_glasses(frame, look, tint=random.uniform(0.85, 1))
    elif kind == "mask":
        _paint_mask(frame, look, MASKS[random.integers(len(MASKS))])
    elif kind == "hand":
        _paint_hand(frame, random, look)
    else:
        colour = muted(random)
        x, y = random.uniform(-0.9, 0.9), random.uniform(-0.9, 0.9)
        length, thickness = random.uniform(0.8, 2), random.uniform(0.1, 0.3)
        bar = Shape(x=x, y=y, rx=length, ry=thickness, angle=random.uniform(0, math.pi), power=8)
        frame.paint(bar, colour, owner=0)


def _mixed(random: np.random.Generator, palette: Array) -> Colour:
    place = random.uniform(0, len(palette) - 1)
    low = min(int(place), len(palette) - 2)
    share = np.float32(place - low)
    colour = palette[low] * (1 - share) + palette[low + 1] * share
    varied: Colour = np.clip(colour * random.uniform(0.93, 1.07, 3).astype(np.float32), 0, 1)
    return varied


def _features(random: np.random.Generator, half_width: float, yaw: float) -> Array:
    """Place eyes, nose and corners of the mouth on a head turned by `yaw` radians.

    A point at depth z, in front of the head's axis, moves sideways by z sin(yaw) while the rest is foreshortened.
    """
    eyes, eye_height = random.uniform(0.31, 0.37), random.uniform(-0.2, -0.06)
    mouth, mouth_height = random.uniform(0.2, 0.28), random.uniform(0.5, 0.6)
    nose_height = random.uniform(0.2, 0.28)
    pitch = random.normal(0, 0.05)
    x = np.array([-eyes, eyes, 0, -mouth, mouth])
    y = np.array([eye_height, eye_height, nose_height + pitch, mouth_height, mouth_height]) + pitch
    depth = np.array([0.5, 0.5, 0.72, 0.56, 0.56]) * half_width / 0.76
    turned = x * math.cos(yaw) + depth * math.sin(yaw)
    return np.stack([turned, y], axis=1).astype(np.float32)


def _scrambled(random: np.random.Generator, half_width: float) -> Array:
    """Place the same features as no face has them: the mouth above, an eye below."""
    heights = np.array([0.5, -0.5, -0.1, -0.45, -0.45]) + random.uniform(-0.12, 0.12, 5)
    across = np.array([-0.3, 0.05, 0.35, -0.35, 0.0]) + random.uniform(-0.12, 0.12, 5)
    turned = across * half_width * (1 if random.random() < 0.5 else -1)
    heights[4] = heights[3]
    turned[3:] = np.sort(turned[3:])
    return np.stack([turned, heights], axis=1).astype(np.float32)


def _paint_back(frame: Frame, look: Look) -> None:
    """Paint what lies behind the face: hair, shoulders and neck."""
    width, shift = look.head.rx, -0.25 * math.sin(look.yaw)
    if look.haircut in {"long", "bob"}:
        length = 1.45 if look.haircut == "long" else 1.1
        frame.paint(Shape(x=shift, y=0.25, rx=width * 1.28, ry=length, power=4), tone(look.hair, 0.8), owner=0)
    frame.paint(Shape(x=0, y=3.4, rx=1.6, ry=1.95, power=4), look.cloth, shading=(0.3, *look.light), owner=0)
    neck = Shape(x=0.3 * shift, y=1.15, rx=width * 0.55, ry=0.5, power=4)
    frame.paint(neck, tone(look.skin, 0.72), owner=0)
    if look.haircut != "bald":
        crown = Shape(x=shift, y=-0.22, rx=width * 1.14, ry=0.98)
        frame.paint(crown, look.hair, shading=(0.25, *look.light), owner=0)


def _paint_ears(frame: Frame, look: Look) -> None:
    for side in (-1.0, 1.0):
        if look.haircut in {"long", "bob"} or (abs(look.yaw) > 0.3 and side != look.near):
            continue
        ear = Shape(x=side * look.head.rx * 0.99, y=0.02, rx=0.1, ry=0.2, angle=side * 0.15)
        frame.paint(ear, tone(look.skin, 0.82))


def _paint_eye(frame: Frame, look: Look, row: int) -> None:
    x, y = look.feature(row)
    side = -1.0 if row == 0 else 1.0
    narrow = _foreshortened(look, x)
    opened = 0.068 + 0.016 * look.openness
    gaze = 0.04 * math.sin(look.yaw)
    inside = Shape(x=x, y=y, rx=0.155 * narrow, ry=opened, bend=0.9)
    frame.paint(
        Shape(x=x, y=y - 0.04, rx=0.24 * narrow, ry=0.17, feather=0.14), tone(look.skin, 0.68), 0.55, within=look.head
    )
    frame.paint(inside, tone(0.75 * WHITE + 0.25 * look.skin, 0.85))
    frame.paint(Shape(x=x + gaze, y=y - 0.01, rx=0.085 * narrow, ry=0.085), look.iris, within=inside)
    frame.paint(Shape(x=x + gaze, y=y - 0.01, rx=0.045 * narrow, ry=0.045), BLACK, within=inside)
    frame.paint(Shape(x=x + gaze + 0.025, y=y - 0.035, rx=0.016, ry=0.016), WHITE, within=inside)
    lid = Shape(x=x, y=y - opened * 0.9, rx=0.175 * narrow, ry=0.032, bend=1.6)
    frame.paint(lid, tone(look.skin, 0.25), 0.9, within=look.head)
    brow = Shape(x=x + side * 0.01, y=y - 0.235, rx=0.2 * narrow, ry=0.04, angle=side * 0.08, bend=1.1, feather=0.03)
    frame.paint(brow, tone(np.minimum(look.hair, look.skin * np.float32(0.6)), 0.9), 0.85, within=look.head)


def _paint_nose(frame: Frame, look: Look) -> None:
    x, y = look.feature(2)
    left, right = look.feature(0), look.feature(1)
    bridge_x, bridge_y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
    shaded = -1.0 if look.light[0] > 0 else 1.0
    length, angle = math.hypot(x - bridge_x, y - bridge_y) / 2, math.atan2(bridge_x - x, y - bridge_y)
    middle_x, middle_y = (x + bridge_x) / 2, (y + bridge_y) / 2
    side = Shape(x=middle_x + shaded * 0.085, y=middle_y, rx=0.05, ry=length, angle=angle, feather=0.06)
    frame.paint(side, tone(look.skin, 0.62), 0.6, within=look.head)
    ridge = Shape(x=middle_x - shaded * 0.02, y=middle_y + 0.03, rx=0.045, ry=length, angle=angle, feather=0.05)
    frame.paint(ridge, tone(look.skin, 1.18), 0.5, within=look.head)
    frame.paint(Shape(x=x, y=y + 0.08, rx=0.17, ry=0.06, bend=-1.2, feather=0.06), tone(look.skin, 0.55), 0.7)
    frame.paint(Shape(x=x, y=y, rx=0.1, ry=0.085, feather=0.07), tone(look.skin, 1.12), 0.6)
    for nostril in (-0.065, 0.065):
        frame.paint(Shape(x=x + nostril, y=y + 0.075, rx=0.035, ry=0.022), tone(look.skin, 0.25), 0.8)


def _paint_mouth(frame: Frame, look: Look) -> None:
    (left_x, left_y), (right_x, right_y) = look.feature(3), look.feature(4)
    x, y, half = (left_x + right_x) / 2, (left_y + right_y) / 2, max((right_x - left_x) / 2, 0.05)
    bend = -look.smile * 0.35 / max(half, 0.12)
    drop = -bend * half * half  # the corners are labelled; the middle of a smile hangs below them
    lips = 0.55 * look.skin + 0.45 * RED * np.float32(0.35 + 0.65 * float(look.skin.mean()))
    y += drop
    gap = max(look.openness, 0) * 0.12
    frame.paint(Shape(x=x, y=y - 0.02 - gap / 2, rx=half * 1.02, ry=0.05, bend=bend), tone(lips, 0.85))
    frame.paint(Shape(x=x, y=y + 0.04 + gap / 2, rx=half * 0.92, ry=0.062, bend=bend), lips)
    inside = Shape(x=x, y=y + 0.005, rx=half * 0.95, ry=0.014 + gap * 0.6, bend=bend)
    frame.paint(inside, tone(lips, 0.22))
    if gap > 0.03:
        frame.paint(Shape(x=x, y=y - gap * 0.2, rx=half * 0.8, ry=gap * 0.32, bend=bend), WHITE, 0.95, within=inside)
    shadow = Shape(x=x, y=y + 0.17 + gap / 2, rx=half * 0.7, ry=0.04, feather=0.06)
    frame.paint(shadow, tone(look.skin, 0.7), 0.5, within=look.head)


def _paint_beard(frame: Frame, look: Look) -> None:
    if look.beard:
        x, y = (look.landmarks[3] + look.landmarks[4]) / 2
        beard = Shape(x=float(x) * 0.8, y=float(y) + 0.22, rx=0.75, ry=0.46, power=4, bend=-0.5, feather=0.16)
        colour = np.minimum(look.hair, look.skin * np.float32(0.75))
        frame.paint(beard, colour, look.beard, within=look.head)


def _paint_hair(frame: Frame, random: np.random.Generator, look: Look) -> None:
    """Paint the hair or hat that frames the forehead."""
    width, shift = look.head.rx, -0.12 * math.sin(look.yaw)
    skull = Shape(x=shift, y=-0.02, rx=width * 1.1, ry=1.12)
    if look.haircut == "bald":
        gloss = Shape(x=look.light[0], y=-0.65, rx=0.3, ry=0.16, feather=0.2)
        frame.paint(gloss, tone(look.skin, 1.25), 0.5, within=look.head)
        return
    line = random.uniform(-0.66, -0.5)
    part = random.uniform(-0.5, 0.5)
    fringe = Shape(x=part, y=line - 0.62, rx=1.5, ry=0.66, bend=random.uniform(0.1, 0.5), feather=0.06)
    if look.haircut == "hat":
        frame.paint(Shape(x=shift, y=-0.95, rx=width * 1.12, ry=0.55, power=4), look.cloth, shading=(0.3, *look.light))
        frame.paint(Shape(x=shift, y=-0.52, rx=width * 1.2, ry=0.09, power=4), tone(look.cloth, 0.7))
        return
    frame.paint(fringe, look.hair, within=skull, shading=(0.0, look.light[0], 0.25))
    for _ in range(4):
        strand = Shape(
            x=random.uniform(-0.6, 0.6) * width,
            y=-0.85 + random.uniform(-0.1, 0.1),
            rx=0.3,
            ry=0.025,
            angle=random.uniform(-0.6, 0.6),
            bend=0.8,
            feather=0.03,
        )
        frame.paint(strand, tone(look.hair, random.choice([0.6, 1.5])), 0.5, within=skull)
    if look.haircut in {"long", "bob"}:
        for side in (-1.0, 1.0):
            lock = Shape(x=side * width * 1.08 + shift, y=0.25, rx=0.16, ry=1.0, angle=-side * 0.06, feather=0.03)
            frame.paint(lock, tone(look.hair, 0.92))


def _paint_glasses(frame: Frame, look: Look, *, tint: float) -> None:
    """Paint frames and glasses of some darkness over the eyes."""
    for row in (0, 1):
        x, y = look.feature(row)
        narrow = _foreshortened(look, x)
        glass = Shape(x=x, y=y + 0.02, rx=0.25 * narrow, ry=0.19, power=4)
        rim = replace(glass, rx=glass.rx + 0.035, ry=glass.ry + 0.035)
        frame.paint(glass, BLACK, tint)
        frame.paint(rim, tone(BLACK, 2), 0.85, hole=glass)
    (left, y), (right, _) = look.feature(0), look.feature(1)
    frame.paint(Shape(x=(left + right) / 2, y=y - 0.03, rx=0.1, ry=0.022, bend=2), tone(BLACK, 2), 0.9)


def _paint_mask(frame: Frame, look: Look, colour: Colour) -> None:
    (x, y), (nose, nose_y) = (look.landmarks[3:].mean(axis=0)), look.feature(2)
    face = Shape(x=look.head.x, y=look.head.y + 0.02, rx=look.head.rx * 1.02, ry=look.head.ry, taper=look.head.taper)
    mask = Shape(x=float(x) * 0.7, y=float(y) + 0.02, rx=look.head.rx * 0.95, ry=0.5, power=4, bend=0.25)
    for side in (-1.0, 1.0):
        strap = Shape(x=side * 0.62, y=0.2, rx=0.28, ry=0.025, angle=-side * 0.45)
        frame.paint(strap, tone(colour, 0.9), within=face)
    frame.paint(mask, colour, within=face, shading=(0.22, look.light[0], look.light[1]))
    for fold in (0.12, 0.28, 0.44):
        pleat = Shape(x=float(x) * 0.7 + nose * 0.1, y=nose_y + fold, rx=0.5, ry=0.018, bend=0.25, feather=0.02)
        frame.paint(pleat, tone(colour, 0.75), 0.7, within=face)


def _paint_hand(frame: Frame, random: np.random.Generator, look: Look) -> None:
    side = -1.0 if random.random() < 0.5 else 1.0
    x, y = side * random.uniform(0.25, 0.7), random.uniform(0.35, 1.0)
    skin = tone(look.skin, random.uniform(0.8, 1.05))
    frame.paint(Shape(x=x, y=y + 0.3, rx=0.36, ry=0.42, power=4), skin, shading=(0.25, *look.light), owner=0)
    _paint_fingers(frame, x, y, skin, [-0.27, -0.09, 0.09, 0.27])


def _paint_fingers(frame: Frame, x: float, y: float, skin: Colour, places: Sequence[float]) -> None:
    for place in places:
        finger = Shape(x=x + place * 1.15, y=y - 0.28 + abs(place) * 0.35, rx=0.085, ry=0.36, angle=place * 0.5)
        frame.paint(finger, skin, shading=(0.3, 0.1, 0), owner=0)


def _foreshortened(look: Look, x: float) -> float:
    """How wide a feature at x still looks on the round of the head."""
    return max(math.sqrt(max(1 - (x / look.head.rx) ** 2, 0.0)) / math.sqrt(1 - 0.2), 0.35)
