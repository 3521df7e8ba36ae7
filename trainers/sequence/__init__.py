"""Models of the order of events: histories, encoders in PyTorch, their training and their ONNX graph.

All but `histories` and `settings` need PyTorch, which is the extra `torch`.
"""
