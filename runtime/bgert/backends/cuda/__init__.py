"""ONNX Runtime's CUDA provider on packed rows, the GPU driven by memory and threads of our own."""
