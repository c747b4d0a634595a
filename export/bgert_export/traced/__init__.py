"""Checkpoints that bgert has no graph writer for: PyTorch's or optimum's exporter writes the graph, bgert the rest."""
