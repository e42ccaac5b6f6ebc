"""Hashes of models."""

import hashlib

import torch
from torch import nn


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's weights and buffers, to prove that training left it alone."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
