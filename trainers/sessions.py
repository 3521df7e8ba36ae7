"""Graphs of a bundle as onnxruntime reads and answers them."""

from pathlib import Path

import onnxruntime as ort

OPSET = 17
"""Version of the ONNX operators of every graph of a bundle."""


def open_session(path: Path) -> ort.InferenceSession:
    """Return a session of one thread over an ONNX file."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
