"""A written model folder beside the PyTorch checkpoint it came from."""
