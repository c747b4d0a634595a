"""bgert inside other libraries. Nothing in the runtime imports this."""
