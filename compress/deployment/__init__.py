"""Deployment: ONNX files, quantisation, torch programs, and their speed.

The modules are imported one by one, since what measures memory must not import torch.
"""
