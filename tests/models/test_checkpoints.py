"""Weights from files: clean, strict, safe, and equal to the public models."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from featherpress.errors import CheckpointError
from featherpress.models import create_model, load_weights, save_weights

PUBLIC = {
    "featherface_v1_ssh_plain": "featherface_v1_c56_ssh_489015",
    "featherface_paper": "featherface_paper_c64_592371",
    "retinaface_mnet025": "retinaface_mnet025_426608",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_checkpoints_match_their_parity_files(name: str, shared: Path) -> None:
    """The public weights load strictly and give the original implementation's outputs to 1e-4."""
    model = create_model(name).eval()
    load_weights(model, shared / "weights" / f"{PUBLIC[name]}.pth")
    expected = np.load(shared / "weights" / f"{PUBLIC[name]}.parity.npz")
    for size in ("a", "b"):
        with torch.no_grad():
            boxes, logits, landmarks = model(torch.from_numpy(expected[f"{size}_input"]))
        outputs = {"boxes": boxes, "scores": logits.softmax(dim=-1), "landmarks": landmarks}
        for key, value in outputs.items():
            assert np.abs(value.numpy() - expected[f"{size}_{key}"]).max() < 1e-4


def test_pretrained_backbone_loads(shared: Path) -> None:
    """The ImageNet backbone fits `backbone`, its classifier left out."""
    model = create_model("featherface_v2")
    before = model.backbone.stage1[0][0].weight.clone()
    load_weights(model.backbone, shared / "weights" / "mobilenetV1X0.25_pretrain.tar")
    assert not torch.equal(before, model.backbone.stage1[0][0].weight)


def test_dirty_files_are_cleaned(tmp_path: Path) -> None:
    """A `module.` prefix, a nesting and a profiler's leftovers do not stand in the way."""
    torch.manual_seed(1)
    source, target = create_model("featherface_v2"), create_model("featherface_v2")
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    state |= {"module.total_ops": torch.zeros(1), "module.backbone.total_params": torch.zeros(1)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "dirty.pth")
    load_weights(target, tmp_path / "dirty.pth")
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


@pytest.mark.parametrize("suffix", ["pth", "pt", "tar", "safetensors"])
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    """Pickles under their three suffixes and safetensors load alike, into a model of other weights."""
    torch.manual_seed(1)
    source, target = create_model("featherface_v2"), create_model("featherface_v2")
    path = tmp_path / f"weights.{suffix}"
    save_weights(source, path) if suffix == "safetensors" else torch.save(source.state_dict(), path)
    load_weights(target, path)
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    """Weights of another width are refused with the first key that differs and both shapes."""
    torch.save(create_model("retinaface_mnet025", out_channels=32).state_dict(), tmp_path / "narrow.pth")
    words = r"wrongly shaped, first 'fpn.laterals.0.0.weight' of \(32, 64, 1, 1\), expected \(64, 64, 1, 1\)$"
    with pytest.raises(CheckpointError, match=words):
        load_weights(create_model("retinaface_mnet025"), tmp_path / "narrow.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [([1, 2], "holds a list, expected a state dict"), ({"lr": 0.1}, "a float under 'lr', expected a tensor")],
)
def test_files_of_something_else(tmp_path: Path, content: object, words: str) -> None:
    """A file that is safe and whole, but no state dict, says what it holds instead."""
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=words):
        load_weights(create_model("featherface_v2"), tmp_path / "other.pth")


def test_mismatch_loads_nothing_and_names_what_fits(tmp_path: Path) -> None:
    """Weights of another preset are refused whole, with the preset they belong to."""
    save_weights(create_model("featherface_v1"), tmp_path / "v1.safetensors")
    model = create_model("featherface_v2")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing, first .*unexpected, first .*it fits featherface_v1"):
        load_weights(model, tmp_path / "v1.safetensors")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


class Malicious:
    """A pickle that would create a file when opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_malicious_pickle_is_refused(tmp_path: Path) -> None:
    """A pickle that would run code is refused with a sentence, and runs nothing."""
    torch.save({"state_dict": Malicious(tmp_path / "hacked")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="could run code"):
        load_weights(create_model("featherface_v2"), tmp_path / "evil.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_missing_and_broken_files(tmp_path: Path, name: str) -> None:
    """A file that is not there, or holds rubbish, is one sentence."""
    model = create_model("featherface_v2")
    with pytest.raises(CheckpointError, match="no weights file"):
        load_weights(model, tmp_path / name)
    for content in (b"rubbish", b'{"quantized": []}'):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a readable"):
            load_weights(model, tmp_path / name)


@pytest.mark.parametrize("kind", ["zip.pth", "old.pth", "tensors.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    """A download that stopped anywhere is one sentence with the file's name, and loads nothing."""
    model, path = create_model("featherface_v2"), tmp_path / kind
    if path.suffix == ".safetensors":
        save_weights(model, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "zip.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=rf"{kind} is not a readable"):
        load_weights(model, path)


def test_a_tar_archive_is_told_from_a_checkpoint(tmp_path: Path) -> None:
    """What was packed is named as that in one line, without torch's advice to load it unsafely."""
    with tarfile.open(tmp_path / "packed.tar", "w") as archive:
        archive.add(__file__, "weights.pth")
    with pytest.raises(CheckpointError, match=r"packed\.tar is a tar archive; unpack it") as caught:
        load_weights(create_model("featherface_v2"), tmp_path / "packed.tar")
    assert "\n" not in str(caught.value)


def test_names_that_are_the_models_own_stay(tmp_path: Path) -> None:
    """A model with a `body`, as public checkpoints call a backbone, loads what was saved of it."""
    model, other = (nn.ModuleDict({"body": nn.Linear(2, 2), "fpn": nn.Linear(2, 2)}) for _ in range(2))
    save_weights(model, tmp_path / "own.safetensors")
    load_weights(other, tmp_path / "own.safetensors")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
