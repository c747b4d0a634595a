"""The rows of docs/coming-from/queries.md whose libraries are here."""

import FlagEmbedding
import numpy as np
import pytest
import query_table
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from bgert.integrations import flag_embedding

INSTRUCTION = "Represent this sentence for searching relevant passages: "


def flag_classes(module):
    """FlagModel and FlagAutoModel in fp32: without, weights are rounded and so vectors differ."""

    class FlagAutoModel:
        @staticmethod
        def from_finetuned(path, **options):
            return module.FlagAutoModel.from_finetuned(path, use_fp16=False, **options)

    return {
        "FlagModel": lambda path, **options: module.FlagModel(path, use_fp16=False, **options),
        "FlagAutoModel": FlagAutoModel,
    }


@pytest.mark.parametrize("module", [FlagEmbedding, flag_embedding], ids=lambda module: module.__name__)
@pytest.mark.parametrize("row", query_table.rows("FlagEmbedding"), ids=str)
@pytest.mark.filterwarnings("ignore::bgert.InstructionWarning")
def test_flag_embedding(row, module, models):
    path = models["bge"] if module is FlagEmbedding else models["exported-bge"]
    row.check(path, models["exported-bge"], flag_classes(module))


@pytest.mark.parametrize("row", query_table.rows("sentence-transformers"), ids=str)
def test_sentence_transformers(row, models):
    row.check(models["bge"], models["exported-bge"], {"SentenceTransformer": SentenceTransformer})


@pytest.mark.parametrize("row", query_table.rows("transformers"), ids=str)
def test_transformers(row, models):
    names = {
        "AutoModel": AutoModel,
        "AutoTokenizer": AutoTokenizer,
        "normalize": torch.nn.functional.normalize,
    }
    row.check(models["bge"], models["exported-bge"], names)


@pytest.mark.parametrize("row", query_table.rows("mteb"), ids=str)
@pytest.mark.filterwarnings("ignore")
def test_mteb(row, models):
    import mteb
    from datasets import Dataset
    from mteb.types import PromptType

    meta = mteb.get_model_meta("BAAI/bge-small-en-v1.5")
    model = meta.loader(str(models["bge"]), **meta.loader_kwargs)
    task = mteb.get_task("NFCorpus").metadata
    inputs = torch.utils.data.DataLoader(Dataset.from_list([{"text": query_table.TEXT}]))
    rows = model.encode(inputs, task_metadata=task, hf_split="test", hf_subset="default", prompt_type=PromptType.query)
    row.check_vector(rows, models["exported-bge"])


def test_the_instruction_is_the_models_own(models):
    """Two rows with it are `encode_queries`, which is only true of a folder that has it."""
    import bgert

    encoder = bgert.Encoder(models["exported-bge"])
    assert encoder.prompt_text("query") == INSTRUCTION
    assert sum(row.added == INSTRUCTION for row in query_table.rows()) >= 4
    assert np.isclose(np.linalg.norm(encoder.encode_queries("a")), 1)
