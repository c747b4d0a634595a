"""`bgert serve`: model folders over HTTP, in the dialects that clients of OpenAI, Cohere, Jina and TEI speak."""
