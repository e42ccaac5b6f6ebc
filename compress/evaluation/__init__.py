"""compress/evaluation."""
