"""Our count beside other counters'."""
