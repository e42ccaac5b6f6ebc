"""How a model learns and shrinks: data, losses, distillation, training, evaluation, pruning."""

from featherpress.lazy import import_later

__all__ = [
    "Comparison",
    "Distiller",
    "Features",
    "Logits",
    "Metric",
    "Pruned",
    "Task",
    "TaskLoss",
    "compare_arms",
    "load_pruned",
    "prune",
    "register_loss",
    "register_task",
]

__getattr__ = import_later(
    "featherpress.compress",
    {
        "distillation.distiller": ["Distiller"],
        "distillation.terms": ["Features", "Logits"],
        "distillation.losses.registry": ["register_loss"],
        "pruning.prune": ["prune"],
        "pruning.result": ["Pruned", "load_pruned"],
        "recipes.kinds": ["register_task"],
        "tasks.base": ["Metric", "Task", "TaskLoss"],
        "experiments.compare_arms": ["Comparison", "compare_arms"],
    },
)
