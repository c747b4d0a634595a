"""TensorRT engines, and the cache they live in."""
