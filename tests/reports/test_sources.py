"""What a report is written from: records that lie in a run's folder, what is named twice, and several counts."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featherpress.errors import FileError, UsageError
from featherpress.reports import write_report
from featherpress.reports.formats import DASH, MINUS
from featherpress.reports.runs import target
from featherpress.reports.sources import LONGEST

pytestmark = pytest.mark.usefixtures("undrawn")

EXPORT = {"schema": "featherpress.export/1", "model": "featherface_v2", "files": [{"kind": "onnx", "bytes": 1_100_000}]}


def audits(run: Path, *changes: tuple[str, Callable[[dict[str, Any]], object]]) -> list[Path]:
    """Write the run's audits, and one more for each change of the student's, into files of their own."""
    budget = json.loads((run / "budget.json").read_text(encoding="utf-8"))
    records = [budget["teacher"], budget["student"]]
    for name, change in changes:
        record = json.loads(json.dumps(budget["student"] | {"model": name}))
        change(record)
        records.append(record)
    files = [Path(f"audit-{number}.json") for number in range(len(records))]
    for file, record in zip(files, records, strict=True):
        file.write_text(json.dumps(record), encoding="utf-8")
    return files


def grow(record: dict[str, Any]) -> None:
    """Give the heads ten times their parameters."""
    heads = next(row for row in record["components"] if row["name"] == "heads")
    record["total"]["params"] += 9 * heads["params"]
    heads["params"] *= 10


def test_records_in_a_folder_are_as_good_as_named(run_dir: Path, bench: Path) -> None:
    """Benchmarks and exports are found by their schema, whatever they are called and however deep they lie."""
    named = write_report([run_dir, bench]).read_text(encoding="utf-8")
    (run_dir / "deployed").mkdir()
    shutil.move(bench, run_dir / "deployed/of-tuesday.json")
    (run_dir / "v2.json").write_text(json.dumps(EXPORT), encoding="utf-8")
    found = write_report([run_dir]).read_text(encoding="utf-8")
    assert "## Exported files" in found
    timings = [re.findall(r"^\| `featherface_v\d` .* ms .*$", text, re.MULTILINE) for text in (named, found)]
    assert timings[0] == timings[1] != []
    assert "From `runs/v1-to-v2/deployed/of-tuesday.json`." in found
    assert f"featherpress report {run_dir}\n" in found


def test_what_is_given_twice_is_shown_once(run_dir: Path, bench: Path) -> None:
    """A record named twice, one both named and found, a copy of it and a run named twice make one of each."""
    shutil.copy(bench, run_dir / "bench.json")
    shutil.copy(bench, run_dir / "eval/copy.json")
    text = write_report([run_dir, bench, Path("runs/../runs/v1-to-v2"), bench]).read_text(encoding="utf-8")
    assert text.startswith("# Distilling")
    assert len(re.findall(r"^\| model +\| backend", text, re.MULTILINE)) == 1
    assert f"featherpress report {run_dir} {bench} runs/../runs/v1-to-v2 {bench}\n" in text


def test_foreign_files_in_a_folder_do_not_matter(run_dir: Path, bench: Path) -> None:
    """JSON that is broken, of other programs or huge is passed over; a broken benchmark is left out with its reason."""
    before = write_report([run_dir]).read_text(encoding="utf-8")
    huge = json.dumps({"schema": "featherpress.bench/1", "x": " " * LONGEST})
    for number, text in enumerate(("{", "[]", '{"schema": "featherpress.bench/9"}', '{"schema": 3}', "\0", huge)):
        (run_dir / f"foreign-{number}.json").write_text(text, encoding="utf-8")
    (run_dir / "gone.json").symlink_to("nowhere.json")
    assert write_report([run_dir]).read_text(encoding="utf-8") == before
    record = json.loads(bench.read_text(encoding="utf-8"))
    record["results"][1].pop("backend")
    (run_dir / "half.json").write_text(json.dumps(record), encoding="utf-8")
    text = write_report([run_dir]).read_text(encoding="utf-8")
    assert "Left out, as it is broken: runs/v1-to-v2/half.json: key 'backend' is missing in results[2]" in text
    with pytest.raises(FileError, match=r"half\.json: key 'backend' is missing"):
        write_report([run_dir, run_dir / "half.json"])


def test_files_have_names_for_every_system(run_dir: Path) -> None:
    """Targets and folders with other characters give files of letters, digits and `._-`, which the text links."""
    budget = json.loads((run_dir / "budget.json").read_text(encoding="utf-8"))
    names = ["my.package:détecteur", "my.package:d.tecteur", "CON", "a b/c:d?e*f|g" + "x" * 200]
    files = [Path(f"audit-{number}.json") for number in range(len(names))]
    for file, name in zip(files, names, strict=True):
        file.write_text(json.dumps(budget["student"] | {"model": name}), encoding="utf-8")
    report = write_report(files, Path("counted"), page=True)
    written = {path.name for path in (report.parent / "figures").iterdir()}
    linked = re.findall(r'src="figures/([^"]+)"', report.read_text(encoding="utf-8"))
    assert sorted(linked) == sorted(written)
    assert len(linked) == len({name.lower() for name in linked}) == 2 * 3
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name) for name in written)


def test_several_counts_are_named_and_tabled(run_dir: Path) -> None:
    """Three audits make a report of three models, each beside the first, with the sign of every change."""
    files = audits(run_dir, ("grown", grow))
    text = write_report(files, Path("counted")).read_text(encoding="utf-8")
    assert text.startswith("# 3 models counted, the others against `featherface_v1`\n")
    assert "runs side by side" not in text
    assert "## Counting `featherface_v1` against `grown`" in text
    rows = {row.split("`")[1]: row for row in re.findall(r"^\| `\w+` .*$", text.partition("\n## ")[0], re.MULTILINE)}
    assert f"{MINUS}47.1 %" in rows["featherface_v2"]
    assert DASH in rows["featherface_v1"]
    said = re.findall(r"^featherpress report .*", text, re.MULTILINE)
    assert set(said) == {"featherpress report audit-0.json audit-1.json audit-2.json --out counted"}


def test_growth_is_never_called_a_reduction(run_dir: Path) -> None:
    """Where the second model is the larger one every sentence and every sign says so."""
    _, small, large = audits(run_dir, ("grown", grow))
    text = write_report([small, large], Path("counted")).read_text(encoding="utf-8")
    assert "**`grown` has 359,628 parameters, 40.0 % more than `featherface_v2`" in text
    assert "+900.0 %" in text
    assert "+40.0 %" in text
    assert "reduc" not in text.lower()
    assert f"{MINUS}900" not in text


def test_a_run_and_counts_are_both_in_the_title(run_dir: Path) -> None:
    """Audits of other models beside a run are not called runs."""
    *_, large, other = audits(run_dir, ("grown", grow), ("other", grow))
    text = write_report([run_dir, large, other], Path("all")).read_text(encoding="utf-8")
    assert text.startswith("# 1 run and 2 models counted\n")
    assert "## Counting `grown` against `other`" in text


def test_counts_of_one_model_at_two_sizes_are_not_compared(run_dir: Path) -> None:
    """Two audits of one name are held to one input as those of two are."""
    files = audits(run_dir, ("featherface_v2", lambda record: record.update(input=[1, 3, 64, 64])))
    said = "featherface_v2@audit-1 at 1x3x640x640, featherface_v2@audit-2 at 1x3x64x64"
    with pytest.raises(UsageError, match=said):
        write_report(files[1:], Path("counted"))


def test_two_sizes_of_one_factory_are_told_apart_by_their_files(run_dir: Path) -> None:
    """What a branch changes: both audits have a row, and the sentence says which is which."""
    _, before, after = audits(run_dir, ("featherface_v2", grow))
    text = write_report([before, after], Path("counted")).read_text(encoding="utf-8")
    assert re.search(r"^\| `featherface_v2@audit-1` +\| +\*\*256,812\*\* ", text, re.MULTILINE)
    assert re.search(r"^\| `featherface_v2@audit-2` +\| +359,628 ", text, re.MULTILINE)
    assert "**`featherface_v2@audit-2` has 359,628 parameters, 40.0 % more than `featherface_v2@audit-1`" in text


def test_an_audit_of_another_size_stands_beside_a_run_of_its_name(run_dir: Path) -> None:
    """It is not dropped for the run's; nor are MACs of another input said to be the least."""

    def smaller(record: dict[str, Any]) -> None:
        grow(record)
        record.update(input=[1, 3, 64, 64])

    *_, other = audits(run_dir, ("featherface_v2", smaller))
    text = write_report([run_dir, other], Path("all")).read_text(encoding="utf-8")
    assert re.search(r"^\| `featherface_v2` +\| +359,628 +\| +429,603,776 ", text, re.MULTILINE)
    assert "; MACs are not of the same input" in text


def test_runs_in_folders_of_one_name_are_all_there(run_dir: Path) -> None:
    """Each has its rows, under its path."""
    for place in ("a", "b"):
        shutil.copytree(run_dir, Path(place) / "run")
    (Path("b/run") / "eval/validation.json").unlink()
    shutil.rmtree("b/run/seed-1", ignore_errors=True)
    text = write_report([Path("a/run"), Path("b/run")], Path("both")).read_text(encoding="utf-8")
    first = text.partition("\n\n## ")[0]
    for place in ("a", "b"):
        assert re.search(rf"^\| `featherface_v1`, teacher, `{place}/run` ", first, re.MULTILINE)
        assert re.search(rf"^\| `{place}/run` ", first, re.MULTILINE)


def test_a_model_without_components_has_no_figure(run_dir: Path) -> None:
    """What costs nothing is said, not drawn as empty axes."""
    nothing = {"params": 0, "macs": 0, "bytes": 0}
    *_, file = audits(run_dir, ("a", lambda r: r.update(components=[], claims=[], total=r["total"] | nothing)))
    text = write_report([file], run_dir / "out").read_text(encoding="utf-8")
    assert "There is no component that costs anything." in text
    assert "costs.png" not in text


def test_a_folder_with_an_at_in_its_name_is_part_of_what_builds_a_model() -> None:
    assert target("nets@2/mine.py:net@small.safetensors") == target("nets@2/mine.py:net") == "nets@2/mine.py:net"
    assert target("mine:net@main") == target("mine:net") == "mine:net"


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ("weights", "a file of weights does not say what runs; give an audit of its model"),
        ("diff", "expected models, got a comparison of two; give an audit of each"),
        ("fit", "expected a model, got what `fit` found; give an audit of it"),
        ("pruning", "expected models, got what was cut; give the run's folder, or an audit of each"),
        ("pin", "expected an audit, got a baseline that `--pin` wrote; give the audit"),
        ("budget", "expected the folder of a run, got a record that lies in one; give the folder"),
        ("mine", "expected a record of one of the schemas"),
    ],
)
def test_other_records_are_told_what_to_give(schema: str, sentence: str, tmp_path: Path) -> None:
    """Records that other commands print are refused with what to give in their place."""
    (tmp_path / "given.json").write_text(json.dumps({"schema": f"featherpress.{schema}/1"}), encoding="utf-8")
    with pytest.raises(FileError, match=re.escape(f"given.json: {sentence}")):
        write_report([tmp_path / "given.json"], tmp_path / "out")
