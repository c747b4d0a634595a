"""The ONNX writers: one file a target, over one small builder."""
