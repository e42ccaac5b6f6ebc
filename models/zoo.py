"""The zoo as data: the models, their costs and their sources, listed without importing torch.

What is declared here is held to the count by `tests/models/test_zoo.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.models.specs import FeatherFaceSpec

if TYPE_CHECKING:
    from torch import nn

DECLARED_SIDE = 640
"""Side of the square image that an entry's MACs are of, in pixels."""

#: Published files of trained weights of others: the sha256 of each, and the code that it belongs to.
PUBLISHED = {
    "featherface_v1_c56_ssh_489015.pth": (
        "3271e30763c069c9dcad6368ae048c53b6be2acf60179240e6b147e6359ef80d",
        "https://github.com/dohun-mat/FeatherFace",
    ),
    "featherface_paper_c64_592371.pth": (
        "f7656f997e7debd687810ff8d4f121e3e92703cf6ea718cb3f300886d3ab994b",
        "https://github.com/dohun-mat/FeatherFace",
    ),
    "retinaface_mnet025_426608.pth": (
        "38ec7bb3c9cbfe2f40edabc05fab970a6d648747cbc534092be85d5eb9b37ed0",
        "https://github.com/biubug6/Pytorch_Retinaface",
    ),
}

_FEATHERFACE = "Kim, Jung, Kim, FeatherFace, Electronics 2025, 14(3), 517"
_STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """The registry's entry of a model: how to build it, and what is declared of it.

    `settings` are the keyword arguments of `build` with their defaults; `params` is the number of learnable parameters
    at these; `paper` is a title short enough for a table and `source` the whole reference; `weights` are the files
    that trained weights are publicly known under, and `shipped` the one of trained weights that comes with the package.
    Of the zoo's own models `macs` of one image of `DECLARED_SIDE`, `fused` parameters after `fuse`, and `strides` in
    pixels are declared too; of others they are counted.
    """

    name: str
    build: "Callable[..., nn.Module]"
    settings: Mapping[str, Any]
    params: int
    summary: str
    year: int
    paper: str
    source: str
    weights: tuple[str, ...] = ()
    shipped: Path | None = None
    macs: int | None = None
    fused: int | None = None
    strides: tuple[int, ...] = ()


def _build(family: str, **settings: Any) -> "nn.Module":
    """Import a family's module, and torch with it, and build one of its models."""
    model: nn.Module = import_module(f"featherpress.models.{family}").build(**settings)
    return model


def _featherface(name: str, summary: str, spec: FeatherFaceSpec, **declared: Any) -> ModelEntry:
    settings = asdict(spec)
    return ModelEntry(
        name=name,
        summary=summary,
        settings=settings,
        build=partial(_build, "featherface", **settings),
        year=2025,
        paper="FeatherFace",
        source=_FEATHERFACE,
        strides=_STRIDES,
        **declared,
    )


_RETINAFACE = {"out_channels": 64, "num_anchors": 2}

ZOO: tuple[ModelEntry, ...] = (
    _featherface(
        "featherface_v1",
        "V1: CBAM twice, three BiFPN cells, one grouped deformable convolution a level",
        FeatherFaceSpec(out_channels=74, bifpn_repeats=3, context="deformable", context_groups=2),
        params=485_599,
        macs=927_736_256,
        fused=480_119,
    ),
    _featherface(
        "featherface_v1_ssh",
        "V1 with deformable SSH at width 56, and CBAM twice",
        FeatherFaceSpec(out_channels=56, context="deformable_ssh"),
        params=502_028,
        macs=1_016_326_720,
        fused=497_578,
    ),
    _featherface(
        "featherface_v1_ssh_plain",
        "V1 with deformable SSH at width 56 and no attention; public weights exist",
        FeatherFaceSpec(out_channels=56, context="deformable_ssh", attention="none", shuffle_order="channel_first"),
        params=489_015,
        macs=1_014_656_800,
        fused=484_571,
        weights=("featherface_v1_c56_ssh_489015.pth",),
    ),
    _featherface(
        "featherface_paper",
        "The published model, 0.49M by its paper; public weights exist",
        FeatherFaceSpec(
            out_channels=64,
            bifpn_repeats=3,
            context="deformable_ssh",
            shuffle_conv=True,
            shuffle_order="channel_first",
        ),
        params=592_371,
        macs=1_243_802_176,
        fused=586_781,
        weights=("featherface_paper_c64_592371.pth",),
    ),
    _featherface(
        "featherface_v2",
        "V2: shared attention, light BiFPN, grouped SSH, shared heads",
        FeatherFaceSpec(
            out_channels=32,
            attention="shared",
            cbam_reduction=32,
            bifpn_groups=4,
            light_pyramid=True,
            context="grouped_ssh",
            context_groups=4,
            shuffle_groups=4,
            heads="shared",
        ),
        params=256_812,
        macs=429_603_776,
        fused=253_194,
        shipped=Path(__file__).parent / "weights" / "featherface_v2.safetensors",
    ),
    ModelEntry(
        name="retinaface_mnet025",
        summary="RetinaFace on MobileNetV1-0.25: feature pyramid, SSH, nine heads; public weights exist.",
        settings=_RETINAFACE,
        build=partial(_build, "retinaface", **_RETINAFACE),
        year=2020,
        paper="RetinaFace",
        source="Deng, Guo, Ververas, Kotsia, Zafeiriou, RetinaFace, CVPR 2020",
        strides=_STRIDES,
        params=426_608,
        macs=981_145_600,
        fused=423_264,
        weights=("retinaface_mnet025_426608.pth",),
    ),
)
