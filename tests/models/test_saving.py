"""Models in files that say what they are."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from featherpress.compress.training.ema import MovingAverage
from featherpress.errors import CheckpointError, UsageError
from featherpress.models import create_model, load_detector, load_model, load_weights, save_model, save_weights
from featherpress.models.creation import origin_of
from featherpress.models.saving import read_metadata, read_origin


def same(ours: nn.Module, theirs: nn.Module) -> bool:
    expected = theirs.state_dict()
    return all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("featherface_v2", {}),
        ("featherface_v1", {"out_channels": 48, "bifpn_repeats": 1, "context": "grouped_ssh", "num_anchors": 3}),
        ("retinaface_mnet025", {"out_channels": 32}),
    ],
)
def test_a_model_comes_back_from_its_file_alone(tmp_path: Path, name: str, overrides: dict[str, object]) -> None:
    """Name, overrides and every weight are in the file, a copy's too, and no partial file stays behind."""
    torch.manual_seed(2)
    model = copy.deepcopy(create_model(name, **overrides))
    save_model(model, tmp_path / "m.safetensors")
    built = load_model(tmp_path / "m.safetensors")
    assert type(built) is type(model)
    assert same(model, built)
    assert origin_of(built) == origin_of(model)
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_the_file_holds_the_whole_spec(tmp_path: Path) -> None:
    """Settings at their defaults are written down too, so that a preset that changes later changes no old file."""
    save_model(
        create_model("featherface_v2", bifpn_repeats=1), tmp_path / "m.safetensors", metadata={"role": "student"}
    )
    metadata = read_metadata(tmp_path / "m.safetensors")
    settings = json.loads(metadata["settings"])
    assert metadata["model"] == "featherface_v2"
    assert metadata["role"] == "student"
    assert settings["bifpn_repeats"] == 1
    assert settings["out_channels"] == 32
    assert settings["heads"] == "shared"


def test_models_of_other_making(tmp_path: Path) -> None:
    """A module that `create_model` did not build cannot be saved as a model; its weights can, and say no name."""
    with pytest.raises(UsageError, match="was not built by create_model"):
        save_model(nn.Linear(2, 2), tmp_path / "m.safetensors")
    save_weights(nn.Linear(2, 2), tmp_path / "w.safetensors")
    assert read_origin(tmp_path / "w.safetensors") is None
    with pytest.raises(CheckpointError, match="does not say which model"):
        load_model(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"model": "featherface_v22"}, "cannot be built here: no model is named 'featherface_v22'; did you mean"),
        ({"model": "featherface_v2", "settings": "{"}, "broken JSON"),
        ({"model": "featherface_v2", "settings": "[3]"}, "expected an object"),
        (
            {"model": "featherface_v2", "settings": '{"out_channels": "wide"}'},
            "out_channels .* 32 by default, got 'wide'",
        ),
        ({"model": "featherface_v2", "settings": '{"widht": 3}'}, "no setting 'widht'"),
    ],
)
def test_files_that_name_something_else(tmp_path: Path, metadata: dict[str, str], words: str) -> None:
    """A file whose model or settings do not exist here is one sentence that starts with its name."""
    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=rf"m.safetensors .*{words}"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("settings", [{"out_channels": 10**9}, {"bifpn_repeats": 10**9}, {"bifpn_groups": 0}])
def test_lying_settings_take_no_memory(tmp_path: Path, settings: dict[str, int]) -> None:
    """A file whose settings its tensors do not bear out is refused before a model of that size is built."""
    path = tmp_path / "lie.safetensors"
    state = create_model("featherface_v2").state_dict()
    save_file(state, path, metadata={"model": "featherface_v2", "settings": json.dumps(settings)})
    with pytest.raises(CheckpointError):
        load_model(path)


def test_detectors_by_file_and_by_name(tmp_path: Path) -> None:
    """A detector is what its file says; a name is needed where the file says none, and one of another is refused."""
    torch.manual_seed(0)
    model = create_model("featherface_v2", num_anchors=3)
    save_model(model, tmp_path / "m.safetensors")
    assert same(model, load_detector(tmp_path / "m.safetensors"))
    assert same(model, load_detector(tmp_path / "m.safetensors", name="featherface_v2"))
    with pytest.raises(CheckpointError, match="does not fit"):
        load_detector(tmp_path / "m.safetensors", name="featherface_v1")
    torch.save(create_model("featherface_v2").state_dict(), tmp_path / "m.pth")
    assert load_detector(tmp_path / "m.pth", name="featherface_v2").anchors.per_cell == 2
    with pytest.raises(UsageError, match="does not say which model"):
        load_detector(tmp_path / "m.pth")


def test_weights_say_their_model_unasked(tmp_path: Path) -> None:
    """What training writes with `save_weights` says its model as well."""
    save_weights(create_model("featherface_v2"), tmp_path / "w.safetensors", metadata={"role": "student"})
    assert read_metadata(tmp_path / "w.safetensors").keys() == {"model", "settings", "role"}


class Tied(nn.Module):
    """One block that stands under three names, and a view of a weight as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.layers = nn.ModuleList([block] * 3)
        self.register_buffer("part", block[0].weight.detach()[:1])


def test_shared_weights_are_kept_once(tmp_path: Path) -> None:
    """They are saved under one name, given back to all, and averaged once a step; a file with all names loads too."""
    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "tied.safetensors")
    names = load_file(tmp_path / "tied.safetensors").keys()
    assert {name.split(".")[1] for name in names if name != "part"} == {"0"}
    load_weights(other, tmp_path / "tied.safetensors")
    assert other.layers[2][0].weight is other.layers[0][0].weight
    assert torch.equal(other.layers[2][0].weight, model.layers[0][0].weight)
    torch.save(model.state_dict(), tmp_path / "all.pt")
    load_weights(other, tmp_path / "all.pt")
    average = MovingAverage(model, decay=0.9)
    before = average.model.layers[0][0].weight.clone()
    with torch.no_grad():
        model.layers[0][0].weight += 1
    average.update(model)
    assert torch.allclose(average.model.layers[2][0].weight, before + 9 / 11)
