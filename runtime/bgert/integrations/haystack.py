"""Haystack: embedders and a ranker. They live in the namespace that Haystack takes when it loads a pipeline."""

from haystack_integrations.components.embedders.bgert import BgertDocumentEmbedder, BgertTextEmbedder
from haystack_integrations.components.rankers.bgert import BgertRanker

__all__ = ["BgertDocumentEmbedder", "BgertRanker", "BgertTextEmbedder"]
