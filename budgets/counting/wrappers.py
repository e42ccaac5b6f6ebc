"""What stands around a model and is no part of it."""

from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile`, DataParallel and DistributedDataParallel, whose names it then has."""
    while True:
        inner = model.module if isinstance(model, _PARALLEL) else as_written(model)
        if inner is model:
            return model
        model = inner


def as_written(module: nn.Module) -> nn.Module:
    """Return the module inside what `torch.compile` made of it."""
    while len(module._modules) == 1 and isinstance(inner := module._modules.get("_orig_mod"), nn.Module):
        module = inner
    return module
