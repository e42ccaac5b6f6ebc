"""How a model learns: data, losses, distillation, training, evaluation."""
