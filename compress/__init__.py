"""How a model learns: data, losses, distillation, training, evaluation."""

from featherpress.lazy import import_later

__all__ = [
    "Comparison",
    "Distiller",
    "Features",
    "Logits",
    "Metric",
    "Task",
    "TaskLoss",
    "compare_arms",
    "register_loss",
    "register_task",
]

__getattr__ = import_later(
    "featherpress.compress",
    {
        "distillation.distiller": ["Distiller"],
        "distillation.terms": ["Features", "Logits"],
        "distillation.losses.registry": ["register_loss"],
        "recipes.kinds": ["register_task"],
        "tasks.base": ["Metric", "Task", "TaskLoss"],
        "experiments.compare_arms": ["Comparison", "compare_arms"],
    },
)
