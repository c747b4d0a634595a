"""Files of rows in, files of vectors or scores out: the work of `bgert encode` and `bgert rerank`."""
