"""Folders of the target portable in fastembed, by its own way to add a model, beside bgert's vectors and scores."""

import itertools

import numpy as np
import pytest
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder

import bgert

LONG = "many words that no model reads to their end " * 100
TEXTS = ["a text", "", "  ", "第三", "Größe [MASK] cafe\u0301 <mask> 😀", "[SEP] [PAD]", "word " * 40, LONG]
FILE = "portable-fp32.onnx"
NAMES = (f"bgert/{number}" for number in itertools.count())


def custom(folder, pooling, *, normalization, **options):
    """A model of fastembed's own kind on the files of a folder alone."""
    name = next(NAMES)
    source = ModelSource(hf=name)
    TextEmbedding.add_custom_model(name, pooling, normalization, source, dim=384, model_file=FILE, **options)
    return TextEmbedding(name, specific_model_path=str(folder))


@pytest.mark.parametrize(("name", "pooling"), [("minilm", PoolingType.MEAN), ("bge", PoolingType.CLS)])
@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_vectors_are_the_encoders(models, name, pooling):
    encoder = bgert.Encoder(models[f"exported-{name}"])
    expected = encoder.encode_corpus(TEXTS)
    folder = models[f"portable-{name}"]
    pooled = custom(folder, PoolingType.DISABLED, normalization=False, output_name="sentence_embedding")
    rows = custom(folder, pooling, normalization=True)  # fastembed pools the first output
    for model in (pooled, rows):
        np.testing.assert_allclose(list(model.embed(TEXTS, batch_size=3)), expected, rtol=0, atol=2e-5)
    assert pooled.token_count([LONG]) == encoder.max_length


@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_scores_are_the_rerankers(models, reranker):
    name = next(NAMES)
    TextCrossEncoder.add_custom_model(name, ModelSource(hf=name), model_file=FILE)
    model = TextCrossEncoder(name, specific_model_path=str(models["portable-reranker"]))
    for query in ("which?", "", LONG):
        expected = reranker.score([(query, text) for text in TEXTS])
        np.testing.assert_allclose(list(model.rerank(query, TEXTS)), expected, rtol=0, atol=1e-4)
