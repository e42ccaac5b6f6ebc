"""One small detector, deformable convolution included, exported once for all tests in every form there is."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from featherpress.compress.data import SyntheticFaces
from featherpress.compress.deployment.exporting import ExportRequest, Int8Request, export
from featherpress.compress.deployment.graphs import GraphOptions
from featherpress.models import save_weights
from featherpress.models.factories import load_factory

NETS = """
import torch
from torch import nn
from featherpress.models import Detector, PriorSpec
from featherpress.models.layers.deformable import DeformableConv


def block(channels, out):
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Small(Detector):
    def __init__(self):
        super().__init__(PriorSpec(strides=(8, 16)))
        self.stem = nn.Sequential(block(3, 8), block(8, 8))
        self.levels = nn.ModuleList(block(8, 8) for _ in range(2))
        self.context = DeformableConv(8, 4)
        nn.init.normal_(self.context.offset.weight, std=0.05)
        self.heads = nn.ModuleList(nn.Conv2d(4, 2 * values, 1) for values in (4, 2, 10))

    def forward(self, images):
        x, found = self.stem(images / 64), []
        for level in self.levels:
            x = level(x)
            y = self.context(x)
            outputs = [head(y).permute(0, 2, 3, 1).flatten(1) for head in self.heads]
            found.append([each.view(each.shape[0], -1, values) for each, values in zip(outputs, (4, 2, 10))])
        return tuple(torch.cat(each, dim=1) for each in zip(*found))


class Airy(nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)


class Branch(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


class Gates(nn.Module):
    # What V2's attention and pyramid do: global pools, maps over channels, and a product with a number.
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.LeakyReLU(0.1))
        self.gate, self.map, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(2, 1, 3, padding=1), nn.Conv2d(16, 32, 1)
        self.weights = nn.Parameter(torch.tensor([0.3, 0.6]))

    def forward(self, images):
        x = self.stem(images / 64)
        y = x * torch.sigmoid(self.gate(x.mean(dim=(2, 3), keepdim=True)) + self.gate(x.amax((2, 3), keepdim=True)))
        maps = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], dim=1)
        y = y * torch.sigmoid(self.map(maps))
        return torch.relu(self.last(torch.relu(self.weights[0] * x + y * self.weights[1])))


def wide():
    torch.manual_seed(0)
    pairs = [(16, 32, nn.LeakyReLU(0.1)), (32, 64, nn.ReLU()), (64, 64, nn.ReLU())]
    layers = [layer for a, b, relu in pairs for layer in (nn.Conv2d(a, b, 1), relu)]
    depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *layers[:2], depthwise, *layers[2:], nn.Conv2d(64, 4, 1))


def gates():
    torch.manual_seed(0)
    return Gates()


def small():
    torch.manual_seed(0)
    return Small()


def airy():
    return nn.Sequential(nn.Conv2d(3, 2, 1), Airy())


def branch():
    return Branch()


def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 8 * 8, 5))
"""


class Exported(NamedTuple):
    """What one export left: its folder, its record, and the weights it was made from."""

    folder: Path
    record: dict[str, Any]
    weights: Path


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module `export_nets`, and the path of imports changed so that it is found."""
    pytest.importorskip("onnxruntime", reason="needs the extra `export`")
    folder = tmp_path_factory.mktemp("nets")
    (folder / "export_nets.py").write_text(NETS)
    before, here = list(sys.path), Path.cwd()
    sys.path.insert(0, str(folder))
    yield folder
    sys.path[:] = before
    os.chdir(here)


@pytest.fixture(scope="session")
def exported(nets: Path) -> Exported:
    """The small detector with priors and decoding, as ONNX, in eight bits and as a torch program."""
    weights = nets / "small.safetensors"
    save_weights(load_factory("export_nets:small"), weights)
    int8 = Int8Request(
        calibration=SyntheticFaces(length=2, seed=0, size=(64, 64)),
        validation=SyntheticFaces(length=3, seed=1, size=(64, 96)),
        about={"name": "synthetic faces", "split": "val"},
    )
    request = ExportRequest(
        target="export_nets:small",
        weights=weights,
        out=nets / "out" / "small.onnx",
        options=GraphOptions(priors=True, decode=True),
        program=True,
        int8=int8,
    )
    with torch.random.fork_rng(devices=[]):
        record = export(request)
    return Exported(nets / "out", record, weights)
