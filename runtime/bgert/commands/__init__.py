"""The `bgert` command, a file a command."""
