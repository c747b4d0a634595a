"""A plain float64 BERT and XLM-RoBERTa in numpy, nothing folded, one text at a time: the second oracle.

Follows "Attention Is All You Need" and the order of operations of the original BERT (LayerNorm after the residual).
"""

import math

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def layer_norm(x, weight, bias, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def hidden_states(weights, config, ids, types=None):
    """float64[S, H] for one text; `weights` by logical name."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    ids = np.asarray(ids)
    types = np.zeros_like(ids) if types is None else np.asarray(types)
    first = config["pad_token_id"] + 1 if config["model_type"] == "xlm-roberta" else 0
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][first + np.arange(len(ids))]
    x = x + w["embeddings.token_type_embeddings.weight"][types]
    x = layer_norm(x, w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], epsilon)
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}."

        def dense(x, name, at=at):
            return x @ w[f"{at}{name}.weight"].T + w[f"{at}{name}.bias"]

        def norm(x, name, at=at):
            return layer_norm(x, w[f"{at}{name}.LayerNorm.weight"], w[f"{at}{name}.LayerNorm.bias"], epsilon)

        q, k, v = (
            dense(x, f"attention.self.{part}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        context = (scores / scores.sum(-1, keepdims=True)) @ v
        context = context.swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + dense(context, "attention.output.dense"), "attention.output")
        wide = dense(x, "intermediate.dense")
        wide = wide * 0.5 * (1 + _erf(wide / math.sqrt(2)))
        x = norm(x + dense(wide, "output.dense"), "output")
    return x


def embedding(weights, config, ids, *, pooling, normalize):
    rows = hidden_states(weights, config, ids)
    pooled = rows[0] if pooling == "cls" else rows.mean(0)
    return pooled / max(np.linalg.norm(pooled), 1e-12) if normalize else pooled


def logits(weights, config, ids, types):
    first = hidden_states(weights, config, ids, types)[0]
    names = ("classifier.dense", "classifier.out_proj")
    dense, out = ("pooler.dense", "classifier") if config["model_type"] == "bert" else names
    hidden = np.tanh(weights[f"{dense}.weight"].astype(np.float64) @ first + weights[f"{dense}.bias"])
    return weights[f"{out}.weight"].astype(np.float64) @ hidden + weights[f"{out}.bias"]
