"""Images in both splits: the same file stops a run, a near copy is a warning."""

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from featherpress.compress.data import WiderFaces
from featherpress.compress.data.leaks import find_leaks
from featherpress.compress.data.subsets import join, select
from featherpress.compress.experiments import distill
from featherpress.compress.experiments.distill import check
from featherpress.compress.recipes import load_recipe
from featherpress.errors import DataError


def photograph(path: Path, seed: int, *, brighter: int = 0, quality: int = 95) -> None:
    """A coarse pattern, which survives compression."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tones = np.random.default_rng(seed).integers(20, 200, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(tones).resize((96, 96), Image.Resampling.BICUBIC)
    image.point(lambda tone: min(tone + brighter, 255)).save(path, quality=quality)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six training and three validation images: one the same file, one a paler copy, one of its own."""
    for split, names in (("train", range(6)), ("val", range(3))):
        folder = tmp_path / f"WIDER_{split}" / "images" / "event"
        lines = []
        for number in names:
            photograph(folder / f"{number}.jpg", seed=number + (100 if split == "val" else 0))
            lines.append(f"event/{number}.jpg\n1\n10 10 40 40 0 0 0 0 0 0\n")
        labels = tmp_path / "wider_face_split"
        labels.mkdir(exist_ok=True)
        (labels / f"wider_face_{split}_bbx_gt.txt").write_text("".join(lines))
    train, val = (tmp_path / f"WIDER_{split}" / "images" / "event" for split in ("train", "val"))
    (val / "0.jpg").write_bytes((train / "4.jpg").read_bytes())
    photograph(val / "1.jpg", seed=2, brighter=12, quality=60)
    return tmp_path


def names(pairs: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(Path(ours).name, Path(theirs).name) for ours, theirs in pairs]


def test_the_same_file_and_a_near_copy_are_found(root: Path) -> None:
    training, validation = WiderFaces(root, "train"), WiderFaces(root, "val")
    found = find_leaks(training, validation)
    assert (names(found.same), names(found.near)) == ([("0.jpg", "4.jpg")], [("1.jpg", "2.jpg")])


def test_parts_of_data_sets_are_looked_into(root: Path) -> None:
    """Joined ones, and those of which images are held out."""
    training, validation = WiderFaces(root, "train"), WiderFaces(root, "val")
    assert len(find_leaks(join(validation, training), validation).same) == 3
    without = select(training, [0, 1, 3, 5])
    found = find_leaks(without, validation)
    assert (found.same, found.near) == ((), ())


def test_the_same_file_stops_a_run_unless_it_is_allowed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = load_recipe(
        "v1_to_v2",
        settings=[
            *(f"data.root={root}", "data.size=64", "schedule.batch_size=2"),
            'teacher={ model = "featherface_v2", weights = "shipped" }',
        ],
    )
    with pytest.raises(DataError, match=r"1 validation images are training images too: .*0\.jpg = .*4\.jpg; take them"):
        check(recipe, without_teachers=False)
    with caplog.at_level(logging.WARNING, logger="featherpress"):
        check(recipe, allow_leak=True)
    assert "1 validation images look like training images" in caplog.text


@pytest.mark.parametrize(("count", "shown"), [(3, "a2 = b2; take"), (4, "a2 = b2, ...; take")])
def test_three_leaks_are_named(monkeypatch: pytest.MonkeyPatch, count: int, shown: str) -> None:
    """Of more there is an ellipsis."""
    same = tuple((f"a{number}", f"b{number}") for number in range(count))
    monkeypatch.setattr(distill, "find_leaks", lambda *_sets: SimpleNamespace(same=same, near=()))
    with pytest.raises(
        DataError, match=f"^{count} validation images are training images too: a0 = b0, a1 = b1, {shown}"
    ):
        distill._check_leaks(None, None, allow=False)
