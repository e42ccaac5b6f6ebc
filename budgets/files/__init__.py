"""What files cost: graphs in ONNX, and weights alone."""
