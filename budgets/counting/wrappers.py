"""What stands around a model and is no part of it."""

from torch import nn

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile`, DataParallel and DistributedDataParallel, whose names it then has."""
    while True:
        inner = model.module if isinstance(model, _PARALLEL) else model._modules.get("_orig_mod")
        if not isinstance(inner, nn.Module) or not (isinstance(model, _PARALLEL) or len(model._modules) == 1):
            return model
        model = inner
