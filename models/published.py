"""Published weights of others: the exact file, by its hash, and the code that it belongs to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedWeights:
    """A file of trained weights: its name here, its sha256, where it is and where its code is; None for not known."""

    file: str
    sha256: str | None = None
    address: str | None = None
    code: str | None = None


_FEATHERFACE, _RETINAFACE = "https://github.com/dohun-mat/FeatherFace", "https://github.com/biubug6/Pytorch_Retinaface"

_PUBLISHED = (
    PublishedWeights(
        file="featherface_v1_c56_ssh_489015.pth",
        sha256="3271e30763c069c9dcad6368ae048c53b6be2acf60179240e6b147e6359ef80d",
        code=_FEATHERFACE,
    ),
    PublishedWeights(
        file="featherface_paper_c64_592371.pth",
        sha256="f7656f997e7debd687810ff8d4f121e3e92703cf6ea718cb3f300886d3ab994b",
        code=_FEATHERFACE,
    ),
    PublishedWeights(
        file="retinaface_mnet025_426608.pth",
        sha256="38ec7bb3c9cbfe2f40edabc05fab970a6d648747cbc534092be85d5eb9b37ed0",
        code=_RETINAFACE,
    ),
)


def find_published(file: str) -> PublishedWeights:
    """Return what is known of a published file by its name; the name alone if nothing is."""
    return next((each for each in _PUBLISHED if each.file == file), PublishedWeights(file=file))


def hash_file(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
