"""The runtime of a run: its folder, processes and devices, logs and progress."""
