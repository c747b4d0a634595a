"""ColBERT's checkpoints in the forms of colbert-ai and PyLate, with random weights."""

import json
import string

import torch
import transformers
from safetensors.torch import load_file, save_file

import bpe_data
from random_network import draw_weights

WORDS = """how to copy a file the text of model which list numbers is in key none it and false read write open query
folder everything with return value type data"""
TEXTS = [
    "how to copy a file",
    "",
    "the text, of the model! " * 9,
    "which list of numbers is in the key? none of it: and it is false.",
    "[MASK] copy [SEP] a file [Q] café",
    "...",
]
SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
COLBERT_AI = {
    "dim": 48,
    "query_maxlen": 12,
    "doc_maxlen": 40,
    "mask_punctuation": True,
    "query_token_id": "[unused0]",
    "doc_token_id": "[unused1]",
    "attend_to_mask_tokens": False,
    "similarity": "cosine",
    "interaction": "colbert",
}
PYLATE = {
    "model_type": "ColBERT",
    "prompts": {},
    "default_prompt_name": None,
    "similarity_fn_name": "MaxSim",
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 14,
    "document_length": 40,
    "attend_to_expansion_tokens": False,
    "skiplist_words": list(string.punctuation),
    "do_query_expansion": True,
}


def _tokenizer(folder, model_type, markers):
    """A tokenizer with the markers as added tokens, as PyLate saves it; its size."""
    if model_type == "bert":
        letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
        tokens = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
        tokens += [f"##{letter}" for letter in letters if letter.isalnum()] + WORDS.split()
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in dict.fromkeys(tokens)))
        tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=72)
    else:
        body = bpe_data.modernbert() if model_type == "modernbert" else bpe_data.roberta()
        names = ("unk", "cls", "sep", "pad", "mask")
        specials = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
        if model_type == "roberta":
            specials = ["<unk>", "<s>", "</s>", "<pad>", "<mask>"]
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=body,
            model_max_length=72,
            model_input_names=["input_ids", "attention_mask"],
            **{f"{name}_token": token for name, token in zip(names, specials, strict=True)},
        )
    tokenizer.add_tokens(markers)
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_network(folder, model_type="bert", markers=(), seed=7, **changes):
    """A checkpoint of an encoder."""
    print("seed", seed)
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(folder, model_type, list(markers))
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=76,
        pad_token_id=tokenizer.pad_token_id,
        **({"type_vocab_size": 1} if model_type == "roberta" else {}),
        **SIZES | changes,
    )
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(config)
    draw_weights(model)
    model.save_pretrained(folder)
    return folder


def write_colbert_ai(folder, **metadata):
    """As `colbert-ir/colbertv2.0`: the layer among the network's weights, which have BERT's prefix."""
    write_network(folder)
    metadata = COLBERT_AI | metadata
    weights = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    weights["linear.weight"] = 0.2 * torch.randn(metadata["dim"], SIZES["hidden_size"])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    (folder / "artifact.metadata").write_text(json.dumps(metadata))
    return folder


def write_pylate(folder, model_type="bert", *, layers=(48,), residual=False, activation="linear.Identity", **settings):
    """As PyLate saves it: the modules Transformer and Dense."""
    settings = PYLATE | settings
    network = {key: settings.pop(key) for key in ("local_attention", "global_attn_every_n_layers") if key in settings}
    markers = [settings[name] for name in ("query_prefix", "document_prefix") if settings.get(name)]
    write_network(folder, model_type, [marker for marker in markers if not marker.startswith("[unused")], **network)
    modules = [("Transformer", "", "sentence_transformers.models.Transformer")]
    width = SIZES["hidden_size"]
    for number, columns in enumerate(layers, 1):
        path = folder / f"{number}_Dense"
        path.mkdir()
        modules.append(("Dense", path.name, "pylate.models.Dense.Dense"))
        config = {
            "in_features": width,
            "out_features": columns,
            "bias": False,
            "activation_function": f"torch.nn.modules.{activation}",
            "use_residual": residual,
        }
        (path / "config.json").write_text(json.dumps(config))
        weights = {"linear.weight": 0.2 * torch.randn(columns, width)}
        if residual and columns != width:
            weights["residual.weight"] = 0.2 * torch.randn(columns, width)
        save_file(weights, path / "model.safetensors", {"format": "pt"})
        width = columns
    listed = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (_, path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 39, "do_lower_case": False}))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder
