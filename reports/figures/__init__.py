"""The figures: each a function from records to a matplotlib `Figure`, in one style."""
