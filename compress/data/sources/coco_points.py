"""Key points in COCO's format: five of them are a face's landmarks, in the order that their names say."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from featherpress.errors import DataError

_OURS = ("left eye", "right eye", "nose", "left mouth", "right mouth")
_MIRRORED = (1, 0, 2, 4, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointOrder:
    """A category, and the places of our five landmarks among its key points: eyes, nose, corners of the mouth.

    `places` is empty where its points are others. Left is left as seen in the image.
    """

    category: str
    points: int
    places: tuple[int, ...]

    @classmethod
    def of(cls, category: Mapping[str, Any], annotations: Sequence[Any], key: object, where: str) -> "PointOrder":
        """Read a category; where its names mean the person's left, which the points tell, sides are exchanged.

        Errors: DataError for names that are no list of different texts.
        """
        names = category.get("keypoints") or []
        if (
            not isinstance(names, list)
            or not all(isinstance(name, str) for name in names)
            or len({*names}) < len(names)
        ):
            raise DataError(f"{where}: expected a list of different names as keypoints, got {str(names)[:60]}")
        known = [_plain(name) for name in names]
        if not names or (len(names) == 5 and all(re.fullmatch(r"\D?\D?\d+", name) for name in names)):
            places: tuple[int, ...] = (0, 1, 2, 3, 4)
        elif all(known.count(ours) == 1 for ours in _OURS):
            places = tuple(known.index(ours) for ours in _OURS)
            if _sides_are_the_persons(annotations, key, places):
                places = tuple(places[n] for n in _MIRRORED)
        else:
            places = ()
        return cls(category=str(category["name"]), points=len(names), places=places)


def _plain(name: str) -> str:
    """Reduce a name to one of ours: `LeftEye`, `eye_l` and `left_eye_center` are the left eye."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-zA-Z])(?=[A-Z][a-z])", " ", name).lower())
    side = "left" if {"left", "l"} & {*words} else "right" if {"right", "r"} & {*words} else ""
    part = next((part for part in ("eye", "nose", "mouth") if part in words), "")
    part = part or ("mouth" if {"lip", "lips"} & {*words} else "")
    extra = {"brow", "eyebrow", "inner", "outer", "upper", "lower", "top", "bottom"} & {*words}
    return "" if extra else f"{side} {part}".strip()


def _sides_are_the_persons(annotations: Sequence[Any], key: object, places: Sequence[int]) -> bool:
    """Tell by most of the points whether the eye that is called left lies to the right of the other."""
    score = 0
    for row in annotations:
        if not isinstance(row, dict) or row.get("category_id") != key:
            continue
        values = row.get("keypoints")
        if not isinstance(values, list) or len(values) < 3 * max(places) + 3:
            continue
        (left, _, seen), (right, _, also) = (values[3 * place : 3 * place + 3] for place in places[:2])
        if all(isinstance(each, int | float) for each in (left, seen, right, also)) and seen > 0 and also > 0:
            score += (left < right) - (left > right)
    return score < 0


def read_points(row: Mapping[str, Any], order: PointOrder, where: str, left_out: Counter[str]) -> list[float]:
    """Return the five landmarks as x, y pairs; empty where there are not five, or one is not labelled.

    Errors: DataError for points that are no finite numbers, or not as many as their category names.
    """
    values = row.get("keypoints")
    if not values:
        return []
    if not isinstance(values, list) or len(values) % 3 or (order.points and len(values) != 3 * order.points):
        wanted = f"{order.points} times" if order.points else "times"
        raise DataError(f"{where}: expected {wanted} x, y, visibility as keypoints, got {str(values)[:60]}")
    if not order.places or len(values) < 15 or (not order.points and len(values) != 15):
        left_out["boxes with other key points, which were not read"] += 1
        return []
    if not all(map(is_finite, values)):
        raise DataError(f"{where}: expected finite numbers as keypoints, got {str(values)[:60]}")
    points = [values[3 * place : 3 * place + 3] for place in order.places]
    if min(point[2] for point in points) > 0:
        return [value for point in points for value in point[:2]]
    left_out["boxes without landmarks, for not all five are labelled"] += any(point[2] > 0 for point in points)
    return []


def is_finite(value: object) -> bool:
    """Return whether a JSON value is a finite number, and none beyond a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
