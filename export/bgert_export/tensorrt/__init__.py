"""TensorRT engines: which shapes, how they are built, and what they compute without a GPU."""
