"""What a run stands on: its folder, its processes and devices, what it logs and shows."""
