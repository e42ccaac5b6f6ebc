"""How a model leaves training: as an ONNX file, quantised, as a torch program; and how fast it then is.

The modules are imported one by one, since what measures memory must not import torch.
"""
