"""Synthetic heads, and round things that are almost one."""

import math

import numpy as np

from featherpress.compress.data.synthetic.drawing import Array, Frame, Shape, muted

_SKINS = np.array([(255, 224, 200), (224, 172, 128), (160, 104, 66), (86, 52, 34)], dtype=np.float32) / np.float32(255)
_HAIRS = np.array([(22, 18, 16), (84, 56, 36), (202, 164, 98), (190, 188, 186)], dtype=np.float32) / np.float32(255)
_WHITE, _BLACK, _RED = (np.array(each, dtype=np.float32) for each in ((0.95,) * 3, (0.05,) * 3, (0.7, 0.2, 0.25)))
_FEATURES = ((-0.34, -0.14, 0.5), (0.34, -0.14, 0.5), (0.0, 0.24, 0.72), (-0.24, 0.54, 0.56), (0.24, 0.54, 0.56))
"""x, y and depth of eyes, nose and corners of the mouth in a face that looks straight ahead."""


def paint_head(frame: Frame, random: np.random.Generator, width: float, *, owner: int, kind: str) -> Array:
    """Paint a head `width` half heights wide from back to front; return its landmarks in the frame, (5, 2).

    A `face` has all features, a `blank` head none, and those of a `scrambled` one are in the wrong places.
    """
    skin, hair, cloth = _mixed(random, _SKINS), _mixed(random, _HAIRS), muted(random)
    length = random.choice([0.8, 0.8, 1.3])
    frame.paint(Shape(0, 3.4, 1.6, 1.95, 0, 4), cloth, owner=0)
    frame.paint(Shape(0, length - 1.1, width * 1.15, length, 0, 4 if length > 1 else 2), hair, owner=0)
    frame.paint(Shape(0, 1.1, width * 0.55, 0.5, 0, 4), skin * np.float32(0.7), owner=0)
    frame.paint(Shape(0, 0, width, 1), skin, owner=owner)
    yaw = float(np.clip(random.normal(0, 0.3), -0.7, 0.7))
    frame.paint(Shape(-0.4 * yaw, 0.1, width * 0.7, 0.8), np.minimum(skin * np.float32(1.12), 1), 0.5)
    landmarks = _turned(random, width, yaw)
    if kind == "scrambled":
        landmarks = landmarks[[3, 2, 0, 1, 4]] * np.array([1, -1], dtype=np.float32)
    if kind != "blank":
        _paint_features(frame, random, landmarks, skin, hair)
    if random.random() < 0.8:
        frame.paint(Shape(-0.15 * yaw, -0.78, width * 0.95, 0.36, 0, 2, 0.4), random.choice([hair, hair, hair, cloth]))
    return landmarks


def paint_cover(frame: Frame, random: np.random.Generator, landmarks: Array) -> None:
    """Hide a part of a face: sunglasses and a mask are worn, a bar takes what it hides from the face."""
    colour, kind = muted(random), random.choice(["sunglasses", "mask", "bar"])
    if kind == "sunglasses":
        for x, y in landmarks[:2].tolist():
            frame.paint(Shape(x, y, 0.27, 0.2, 0, 4), _BLACK)
    elif kind == "mask":
        x, y = landmarks[3:].mean(axis=0).tolist()
        frame.paint(Shape(0.7 * x, y, 0.55, 0.42, 0, 4), colour)
    else:
        (x, y), angle = random.uniform(-0.9, 0.9, 2).tolist(), random.uniform(0, math.pi)
        frame.paint(Shape(x, y, random.uniform(0.8, 2), random.uniform(0.1, 0.35), angle, 8), colour, owner=0)


def paint_ball(frame: Frame, random: np.random.Generator) -> None:
    """Paint a round thing with two to five spots, which is not a face."""
    frame.paint(Shape(0, 0, random.uniform(0.7, 1), 1, 0, int(random.choice([2, 4]))), muted(random), owner=0)
    ink = muted(random)
    for x, y in random.uniform(-0.55, 0.55, (random.integers(2, 6), 2)).tolist():
        rx, ry = random.uniform(0.06, 0.3, 2).tolist()
        frame.paint(Shape(x, y, rx, ry, random.uniform(0, math.pi)), ink)


def _mixed(random: np.random.Generator, palette: Array) -> Array:
    """Mix the colours of a palette, mostly from one or two of them."""
    return random.dirichlet([0.4] * len(palette)).astype(np.float32) @ palette


def _turned(random: np.random.Generator, width: float, yaw: float) -> Array:
    """Place the features of a head turned by `yaw` radians; what lies in front of its axis moves sideways."""
    x, y, depth = np.array(_FEATURES).T
    y = y + random.normal(0, 0.04) + random.normal(0, 0.03, 3)[[0, 0, 1, 2, 2]]
    x = x * random.uniform(0.9, 1.1, 2)[[0, 0, 0, 1, 1]]
    return np.stack([x * math.cos(yaw) + depth * math.sin(yaw) * width / 0.76, y], axis=1).astype(np.float32)


def _paint_features(frame: Frame, random: np.random.Generator, points: Array, skin: Array, hair: Array) -> None:
    dark, glasses, narrow = skin * np.float32(0.6), random.random() < 0.2, random.uniform(0.8, 1.1)
    for x, y in points[:2].tolist():
        rx = 0.17 * narrow * max(1 - x * x, 0.4)
        frame.paint(Shape(x, y, 1.5 * rx, 0.2), dark, 0.5)
        frame.paint(Shape(x, y, rx, 0.1), _WHITE)
        frame.paint(Shape(x, y, 0.1, 0.1), _BLACK)
        frame.paint(Shape(x, y - 0.23, 1.2 * rx, 0.04, 0, 2, 1), np.minimum(hair, dark), 0.9)
        if glasses:
            frame.paint(Shape(x, y, 0.26, 0.2, 0, 4), _BLACK, 0.35)
    x, y = points[2].tolist()
    frame.paint(Shape(x * 0.8, y - 0.15, 0.06, 0.22), dark, 0.6)
    frame.paint(Shape(x, y + 0.05, 0.15, 0.07), dark * np.float32(0.7), 0.8)
    (left, left_y), (right, right_y) = points[3:].tolist()
    across, angle = math.hypot(right - left, right_y - left_y) / 2, math.atan2(right_y - left_y, right - left)
    high = random.uniform(0.05, 0.12)
    mouth = Shape((left + right) / 2, (left_y + right_y) / 2 + 0.5 * high, across, high, angle, 2, -0.5)
    frame.paint(mouth, skin * np.float32(0.4) + _RED * np.float32(0.4))
    frame.paint(Shape(mouth.x, mouth.y, across * 0.8, high * 0.4, angle, 2, -0.5), random.choice([_WHITE, _BLACK]), 0.8)
