"""Deployment: ONNX files, quantisation, torch programs, and their speed.

The modules are imported one by one, since what measures memory must not import torch.
"""

import os

# Read when onnxruntime is imported: it would send what it runs to its makers, and keep a number of this machine.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
