"""How a model learns: data, losses, distillation, training, evaluation."""

from featherpress.lazy import import_later

__all__ = ["Comparison", "Distiller", "Features", "Logits", "compare_arms", "register_loss"]

__getattr__ = import_later(
    "featherpress.compress",
    {
        "distillation.distiller": ["Distiller"],
        "distillation.terms": ["Features", "Logits"],
        "distillation.losses.registry": ["register_loss"],
        "experiments.compare_arms": ["Comparison", "compare_arms"],
    },
)
