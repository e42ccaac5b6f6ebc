"""`featherpress detect`: files, folders, patterns, tiles, formats and mistakes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from featherpress.compress.evaluation.detector import predict
from featherpress.compress.evaluation.detector.predict import drawing_paths, find_photographs
from featherpress.errors import UsageError
from featherpress.files import hash_file
from featherpress.models import shipped_weights

Run = Callable[..., Any]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Images of two sizes in two folders, a hidden one, and a text file."""
    noise = np.random.default_rng(0)
    for name, size in {"a.jpg": (90, 70), "b.PNG": (90, 70), "sub/c.webp": (64, 80), ".hidden.png": (64, 64)}.items():
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)
    (tmp_path / "album" / "notes.txt").write_text("no image")
    return tmp_path / "album"


def names(found: list[Any]) -> list[str]:
    return [str(each.place) for each in found]


def test_folders_files_and_patterns_name_images(album: Path) -> None:
    """A folder's images, those below it if asked for, what a pattern matches, each once, no hidden ones."""
    assert names(find_photographs([album])) == ["a.jpg", "b.PNG"]
    assert names(find_photographs([album], recursive=True)) == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert names(find_photographs([album / "*.jpg", album / "a.jpg"])) == ["a.jpg"]
    assert names(find_photographs([album / "**" / "c.*"])) == ["c.webp"]
    assert names(find_photographs([album], recursive=True, leave_out=album / "sub")) == ["a.jpg", "b.PNG"]
    for wrong, says in (
        (album / "gone.jpg", "found nothing at"),
        (album / "*.tif", "found none"),
        (album.parent, "--recursive searches"),
    ):
        with pytest.raises(UsageError, match=says):
            find_photographs([wrong])


def test_drawings_keep_apart_what_shares_a_stem(album: Path) -> None:
    """a.jpg and a.png are drawn in two files; folders below a folder are kept."""
    Image.new("RGB", (64, 64)).save(album / "a.png")
    found = find_photographs([album], recursive=True)
    assert [str(path) for path in drawing_paths(found, Path("out"))] == [
        "out/a.jpg.png",
        "out/a.png.png",
        "out/b.png",
        "out/sub/c.png",
    ]


def test_a_folder_is_drawn_and_printed(run_command: Run, album: Path, weights: Path, tmp_path: Path) -> None:
    """Every image below is drawn at its own size, a second time too; JSON has them in order, whatever the batches."""
    for _ in range(2):
        ending = run_command("detect", ".", "--recursive", "--weights", weights, "--out", "album/out")
        assert ending.code == 0, ending.err
        assert ending.out.count("drawn in") == 3
    with Image.open(tmp_path / "album" / "out" / "album" / "sub" / "c.png") as drawn:
        assert drawn.size == (64, 80)
    options = ("--batch", 2, "--flip", "--out", "album/out")
    ending = run_command("detect", album, "--recursive", "--weights", weights, "--json", *options)
    record = json.loads(ending.out)
    assert [Path(row["file"]).name for row in record["images"]] == ["a.jpg", "b.PNG", "c.webp"]
    assert [(row["width"], row["height"]) for row in record["images"]] == [(90, 70), (90, 70), (64, 80)]
    assert (record["threshold"], record["skipped"], record["protocol"]["flip"]) == (0.5, 0, True)


def test_a_drawing_of_another_photograph_stays(run_command: Run, album: Path, weights: Path, tmp_path: Path) -> None:
    """Of one stem, of one name in other folders, or someone's own file: none is replaced by a later call."""
    for name in ("b.jpg", "sub/b.jpg", "b-2.jpg"):
        Image.new("RGB", (64, 64)).save(album / name)
    drawn = tmp_path / "detections"
    drawn.mkdir()
    (drawn / "b-3.png").write_bytes(b"mine")
    for photographs, target in (
        (["b.PNG"], "b.png"),
        (["b.jpg", "b-2.jpg"], "b-4.png"),
        (["sub/b.jpg"], "b-5.png"),
        (["b.jpg"], "b-4.png"),
        (["b.PNG"], "b.png"),
    ):
        ending = run_command("detect", *(album / each for each in photographs), "--weights", weights)
        assert f"drawn in {Path('detections') / target}\n" in ending.out
    assert sorted(path.name for path in drawn.iterdir()) == ["b-2.png", "b-3.png", "b-4.png", "b-5.png", "b.png"]
    assert (drawn / "b-3.png").read_bytes() == b"mine"


def test_a_broken_image_is_reported_and_the_others_are_done(run_command: Run, album: Path, weights: Path) -> None:
    """One line a broken image, everything else printed, and exit code 2."""
    (album / "b.PNG").write_bytes((album / "b.PNG").read_bytes()[:300])
    ending = run_command("detect", album, "--weights", weights, "--json")
    assert ending.code == 2
    assert len(ending.err.splitlines()) == 1
    assert "b.PNG" in ending.err
    record = json.loads(ending.out)
    assert (record["skipped"], len(record["images"])) == (1, 1)


def test_photographs_in_a_format_that_is_not_read_are_counted(run_command: Run, album: Path, weights: Path) -> None:
    """A telephone's folder is not silently half done: a line counts them, the record names each."""
    for number in range(3):
        (album / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    ending = run_command("detect", album, album / "a.jpg", "--weights", weights, "--json")
    assert ending.code == 0
    assert "passed over 3 photographs" in ending.err
    assert "IMG_0.HEIC" in ending.err
    assert json.loads(ending.out)["passed_over"] == [str(album / f"IMG_{number}.HEIC") for number in range(3)]


def test_a_large_photograph_is_scaled_down_and_said_to_be(
    run_command: Run, album: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces are in the pixels of the file, the record and one line say what was searched; tiles see it as it is."""
    monkeypatch.setattr(predict, "PIXELS", 5000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    ending = run_command("detect", album, "--weights", weights, "--threshold", 0.3, "--json")
    assert (ending.code, len(ending.err.splitlines())) == (0, 1)
    assert "scaled down to that, as" in ending.err
    assert "--tile 1024" in ending.err
    [row, _] = json.loads(ending.out)["images"]
    assert (row["width"], row["height"], row["searched_at"]) == (90, 70, [80, 62])
    assert max(face["box"][2] for face in row["faces"]) > 80
    assert Image.MAX_IMAGE_PIXELS == 1000
    ending = run_command("detect", album / "a.jpg", "--weights", weights)
    assert ending.out.endswith(f"drawn in {Path('detections/a.png')} at the 80 x 62 pixels that were searched\n")
    for option in (("--tile", 64), ("--long-side", 90)):
        ending = run_command("detect", album, "--weights", weights, "--json", *option)
        assert (ending.err, "searched_at" in json.loads(ending.out)["images"][0]) == ("", False)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16", "1"])
def test_any_mode_is_detected_in_silence(run_command: Run, weights: Path, tmp_path: Path, mode: str) -> None:
    """Grey, transparent, palette, CMYK and 16-bit images are read, turned upright and drawn; Pillow says nothing."""
    base = Image.effect_noise((100, 70), 50)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(base).astype(np.uint16) * 257)
    else:
        image = base.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / ("image.tif" if mode in {"CMYK", "I;16"} else "image.png")
    image.save(path, exif=exif)
    ending = run_command("detect", path, "--weights", weights)
    assert (ending.code, ending.err) == (0, "")
    with Image.open(tmp_path / "detections" / "image.png") as drawn:
        assert drawn.size == (70, 100)


def test_tiles_print_what_they_were(run_command: Run, album: Path, weights: Path) -> None:
    """The size and overlap of tiles are stamped; boxes lie in the image."""
    arguments = ("--tile", 64, "--overlap", 20, "--threshold", 0.3, "--json")
    record = json.loads(run_command("detect", album / "a.jpg", "--weights", weights, *arguments).out)
    assert (record["tile"], record["overlap"]) == (64, 20)
    for face in record["images"][0]["faces"]:
        assert 0 <= face["box"][0] <= face["box"][2] <= 90


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--overlap", 3), "goes with --tile"),
        (("--tile", 3), "64 to 16384"),
        (("--tile", 64, "--overlap", 60), "half a tile"),
        (("--tile", 64, "--long-side", 64), "leave the long side out"),
    ],
)
def test_tiles_that_make_no_sense_end_in_a_sentence(
    run_command: Run, album: Path, weights: Path, options: tuple[str, ...], says: str
) -> None:
    """One line, exit code 2."""
    ending = run_command("detect", album / "a.jpg", "--weights", weights, *options)
    assert ending.code == 2
    assert says in ending.err
    assert len(ending.err.splitlines()) == 1


def test_without_weights_the_shipped_ones_are_taken(run_command: Run, album: Path) -> None:
    """What comes along detects as a file of the same weights does; a model without any is refused, its name said."""
    least = ("--json", "--threshold", "0.01")
    shipped = json.loads(run_command("detect", album / "a.jpg", *least).out)
    named = json.loads(
        run_command("detect", album / "a.jpg", *least, "--weights", shipped_weights("featherface_v2")).out
    )
    assert shipped["images"] == named["images"]
    file = shipped_weights("featherface_v2")
    said = {"model": "featherface_v2", "weights": file.name, "weights_sha256": hash_file(file)}
    assert {key: shipped[key] for key in said} == {key: named[key] for key in said} == said
    ending = run_command("detect", album / "a.jpg", "--json")
    card = shipped_weights("featherface_v2").with_suffix(".md").read_text(encoding="utf-8")
    [best] = re.findall(r"Best F1 [\d.]+ at a score of ([\d.]+) ", card)
    assert json.loads(ending.out)["threshold"] == float(best)
    assert f"faces from a score of {best} on, the best F1 by featherface_v2.md" in ending.err
    ending = run_command("detect", album / "a.jpg", "--model", "featherface_v1")
    assert ending.code == 2
    assert "without --weights the shipped ones are taken, but no trained weights are shipped for" in ending.err
