"""Files of weights and programs: what they hold is listed, what runs is not known, and nothing is unpickled."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.budgets.files.programs import open_program
from featherpress.errors import FileError

Run = Callable[..., tuple[int, str, str]]


class Shouts:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("UNPICKLED",)


@pytest.fixture
def run(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return run_command


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_weights_are_listed_by_prefix_and_type(run: Run, tmp_path: Path) -> None:
    """Parameters, bytes and types of each part; the work is null in JSON, empty in CSV, and said to be unknown."""
    save_file(net().half().state_dict(), tmp_path / "w.safetensors")
    code, out, _ = run("audit", "w.safetensors", "--json")
    record = json.loads(out)
    assert (code, record["schema"], record["total"]["macs"]) == (0, "featherpress.weights/1", None)
    rows = {row["name"]: (row["params"], row["bytes"], row["types"]) for row in record["components"]}
    assert rows == {"0": (16, 32, {"float16": 16}), "1": (8, 40, {"float16": 16, "int64": 1})}
    table = run("audit", "w.safetensors")[1]
    assert "MACs are not known: w.safetensors holds weights alone" in " ".join(table.split())
    assert "FLOPs" not in table
    assert "0,16,0.6666666666666666,,," in run("audit", "w.safetensors", "--format", "csv")[1]


def test_a_checkpoint_among_other_things(run: Run, tmp_path: Path) -> None:
    """The model's part is counted, and what else the file holds is said; tensors that are tied count once."""
    state = net().state_dict()
    state["tied"] = state["0.weight"]
    torch.save({"model": state, "optimizer": {"state": [torch.zeros(7)]}, "epoch": 3}, tmp_path / "c.pth")
    record = json.loads(run("audit", "c.pth", "--json")[1])
    assert record["total"]["params"] == 24
    assert "counted is 'model'; the file also holds optimizer (7 numbers), epoch" in record["notes"]
    assert "1 names share the memory of others, and count once" in record["notes"]


def test_shards_are_one_model(run: Run, tmp_path: Path) -> None:
    """An index names the files of a model in several."""
    for part in (0, 1):
        save_file({f"layer{part}.weight": torch.zeros(3, 2)}, tmp_path / f"part{part}.safetensors")
    index = {"weight_map": {f"layer{part}.weight": f"part{part}.safetensors" for part in (0, 1)}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    assert json.loads(run("audit", "m.safetensors.index.json", "--json")[1])["total"]["params"] == 12
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    (tmp_path / "b.toml").write_text(f'model = "x"\ninput = [1]\n[total]\nexported = {{ max = {size - 1} }}\n')
    code, out, _ = run("audit", "m.safetensors.index.json", "--budget", "b.toml")
    assert (code, f"total has {size:,} bytes of the exported file" in " ".join(out.split())) == (1, True)
    (tmp_path / "b.toml").write_text((tmp_path / "b.toml").read_text().replace("[1]", "[1, 2]"))
    model = ("torch.nn:Linear", "--set", "in_features=2", "--set", "out_features=2")
    assert "it holds for a file, as `audit NET.onnx`" in " ".join(run("audit", *model, "--budget", "b.toml")[1].split())
    save_file({f"layer{part}.weight": torch.zeros(3, 2) for part in (0, 1)}, tmp_path / "part1.safetensors")
    assert json.loads(run("audit", "m.safetensors.index.json", "--json")[1])["total"]["params"] == 12
    for places, words in (
        ({"gone.weight": "part0.safetensors"}, "names gone.weight, which part0.safetensors does not hold"),
        ({"x": "m.safetensors.index.json"}, "which is no file in safetensors' format"),
        ({}, "holds no tensors"),
    ):
        (tmp_path / "n.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        code, _, said = run("audit", "n.safetensors.index.json")
        assert (code, words in said) == (2, True)
    (tmp_path / "part1.safetensors").unlink()
    assert run("audit", "m.safetensors.index.json")[0] == 2


def test_what_optimizers_keep_is_no_parameter(run: Run, tmp_path: Path) -> None:
    """Where a file does not say which part is the model, an optimizer's moments are told by their names."""
    moments = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(500)}}}
    torch.save({"weights_of_mine": net().state_dict(), "optim": moments}, tmp_path / "c.pth")
    record = json.loads(run("audit", "c.pth", "--json")[1])
    assert record["total"]["params"] == 24
    assert "510 numbers are no parameters by their names, such as running_mean" in record["notes"]
    torch.save(moments, tmp_path / "o.pth")
    record = json.loads(run("audit", "o.pth", "--json")[1])
    assert (record["total"]["params"], record["notes"][1]) == (
        0, "501 numbers are no parameters by their names, such as step",
    )  # fmt: skip


def test_a_sparse_tensor_takes_what_it_stores(run: Run, tmp_path: Path) -> None:
    """Ten positions of two numbers each, and ten values."""
    torch.save({"s": torch.eye(10).to_sparse()}, tmp_path / "s.pth")
    total = json.loads(run("audit", "s.pth", "--json")[1])["total"]
    assert (total["params"], total["bytes"]) == (100, 10 * (2 * 8 + 4))


def test_limits_on_weights(run: Run, tmp_path: Path) -> None:
    """Parameters and bytes are held to a budget; MACs cannot be, and that is said."""
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    limits = "[total]\nparams = { max = 23 }\nmacs = { max = 1 }\n"
    (tmp_path / "b.toml").write_text(f'model = "x"\ninput = [1, 3, 8, 8]\n{limits}')
    code, out, _ = run("audit", "w.safetensors", "--budget", "b.toml")
    words = " ".join(out.split())
    assert (code, "total has 24 parameters, 1 above the limit of 23" in words) == (1, True)
    assert "MACs are not known" in words


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # of torch.jit
def test_nothing_is_unpickled(run: Run, tmp_path: Path) -> None:
    """Whole models, objects and rubbish are refused in one sentence, and never run."""
    torch.save(net(), tmp_path / "whole.pth")
    torch.save({"w": torch.zeros(2), "x": Shouts()}, tmp_path / "object.ckpt")
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Shouts(), protocol=2))
    for name in ("rubbish.safetensors", "RUBBISH.SAFETENSORS"):
        (tmp_path / name).write_bytes(b"rubbish")
    torch.jit.script(net()).save(tmp_path / "script.pt")
    for name in ("whole.pth", "object.ckpt", "plain.bin", "rubbish.safetensors", "RUBBISH.SAFETENSORS", "script.pt"):
        code, out, err = run("audit", name)
        assert (code, out, err.count("\n"), "UNPICKLED" in err) == (2, "", 1, False)
        assert "to `False`" not in err


PROGRAMS = pytest.mark.needs_torch("2.9", "its programs are files of plain tensors and JSON")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Doubles(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.line(x)

    path = tmp_path_factory.mktemp("program") / "p.pt2"
    exported = torch.export.export(Doubles(), (torch.zeros(4, 3),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(exported, path)
    return path


@PROGRAMS
def test_a_program_is_counted(run: Run, program: Path) -> None:
    """On what it was exported with, or on another input that it takes."""
    module, inputs = open_program(program)
    assert count(module, *inputs.args).macs == 4 * 12
    record = json.loads(run("audit", str(program), "--input", "6x3", "--json")[1])
    assert (record["total"]["macs"], record["total"]["params"]) == (72, 16)


@PROGRAMS
def test_a_programs_work_is_its_modules(run: Run, tmp_path: Path) -> None:
    """Rows as of the model that it was exported from: its classes, its calls, one called twice, one without weights."""

    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())
            self.once, self.head = nn.Conv2d(3, 3, 3), nn.Sequential(nn.Flatten(), nn.Linear(48, 5))

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.twice(self.once(self.twice(x))))
            return out

    model = Calls().eval()
    image = torch.zeros(1, 3, 6, 6)
    program = torch.export.export(model, (image,))
    torch.export.save(program, tmp_path / "p.pt2")
    module, inputs = open_program(tmp_path / "p.pt2")
    usual = count(model, image)
    for cost in (count(module, *inputs.args), count(cast("nn.Module", program), image)):
        rows = {row.path: row for row in cost.modules if row.path}
        assert (rows["once"].macs, rows["twice.0"].calls) == (81 * 16, 2)
        assert rows == {row.path: row for row in usual.modules if row.path}
        assert cost.work == usual.work
    components = json.loads(run("audit", str(tmp_path / "p.pt2"), "--json")[1])["components"]
    macs = {each["name"]: each["macs"] for each in components}
    assert macs == {"twice": 9 * 36 + 9 * 16, "once": 81 * 16, "head": 240}


@PROGRAMS
def test_a_programs_paths_are_no_code(program: Path, tmp_path: Path) -> None:
    """Whatever a file calls its modules is a name."""
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(tmp_path / "p.pt2", "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("models/model.json"):
                assert b",line," in content
                content = content.replace(b",line,", rb",')+1/0+(\",")
            target.writestr(name, content)
    module, inputs = open_program(tmp_path / "p.pt2")
    assert {row.path: row.macs for row in count(module, *inputs.args).modules}["')+1/0+(\""] == 48


@PROGRAMS
@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("models/model.json", '"name":"linear"', '"name":"x=print()"', "holds code in its graph"),
        ("models/model.json", "Symbol('", "eval('", "holds code in its graph"),
        ("models/model.json", "Symbol(", "().__class__(", "holds code in its graph"),
        ("data/weights/model_weights_config.json", '"use_pickle":false', '"use_pickle":true', "holds pickled tensors"),
        ("data/sample_inputs/model.pt", "", "pickle", "holds pickled inputs"),
        ("data/constants/custom_obj_0", "", "", "holds a pickled object"),
        ("data/weights/model.pt", "", "", "holds pickled tensors"),
    ],
)
def test_a_program_with_code_or_pickles_is_refused(  # noqa: PLR0917
    program: Path, tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    """Whatever torch would run or unpickle when it reads the file, it is not read."""
    changed = False
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as target:
        for each in source.namelist():
            content = source.read(each)
            if each.endswith(name):
                text = content.decode(errors="replace").replace(": ", ":")
                content = (
                    pickle.dumps(Shouts(), protocol=2)
                    if new == "pickle"
                    else text.replace(old, new).encode()
                    if old
                    else content
                )
                changed = new == "pickle" or new in content.decode()
            target.writestr(each, content)
        if not old and new != "pickle":
            target.writestr(f"p/{name}", b"x")
            changed = True
    assert changed
    with pytest.raises(FileError, match=words):
        open_program(tmp_path / "bad.pt2")


@PROGRAMS
def test_what_is_no_program(tmp_path: Path) -> None:
    """Rubbish, and an archive of something else."""
    (tmp_path / "a.pt2").write_bytes(b"rubbish")
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("x/y", "z")
    for name in ("a.pt2", "b.pt2"):
        with pytest.raises(FileError, match=r"is not a program of torch\.export"):
            open_program(tmp_path / name)
    for text in ("{", "[" * 100_000):
        with zipfile.ZipFile(tmp_path / "c.pt2", "w") as archive:
            archive.writestr("x/models/model.json", text)
        with pytest.raises(FileError, match=r"c\.pt2 cannot be read: "):
            open_program(tmp_path / "c.pt2")
