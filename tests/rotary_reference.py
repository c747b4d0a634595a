"""Alibaba's `new` network in float64 torch, written from its published description: nothing fused, one text at a time.

For what no class of transformers computes: NTK scaling, and weights under the names of the authors' own code.
"""

import torch


def rotated(x, frequencies):
    """x [S, N, D]: the two halves of D are the parts of complex numbers, turned by position times frequency."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x), dtype=torch.float64)[:, None] * frequencies
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


def frequencies(theta, size, factor):
    """Equation 6 of kexue.fm/archives/9706: theta grows by the factor, and positions shrink by factor^(2 / size)."""
    return torch.tensor([(theta * factor) ** (-2 * i / size) / factor ** (2 / size) for i in range(size // 2)])


def hidden_states(weights, config, ids, types=None):
    """float64[S, H]."""
    w = {name.removeprefix("new."): value.double() for name, value in weights.items()}

    def linear(x, name):
        product = x @ w[f"{name}.weight"].T
        return product + w[f"{name}.bias"] if f"{name}.bias" in w else product

    def norm(x, name):
        return torch.nn.functional.layer_norm(
            x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], config["layer_norm_eps"]
        )

    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    turns = frequencies(config["rope_theta"], size, (config["rope_scaling"] or {"factor": 1.0})["factor"])
    x = w["embeddings.word_embeddings.weight"][ids]
    if config["type_vocab_size"]:
        x = x + w["embeddings.token_type_embeddings.weight"][torch.zeros_like(ids) if types is None else types]
    x = norm(x, "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        query, key, value = linear(x, f"{at}.attention.qkv_proj").reshape(len(ids), 3, heads, size).unbind(1)
        query, key = rotated(query, turns), rotated(key, turns)
        scores = torch.einsum("snd,tnd->nst", query, key) / size**0.5
        context = torch.einsum("nst,tnd->snd", scores.softmax(-1), value).reshape(len(ids), -1)
        x = norm(x + linear(context, f"{at}.attention.o_proj"), f"{at}.attn_ln")
        up, gate = linear(x, f"{at}.mlp.up_gate_proj").chunk(2, dim=-1)
        x = norm(x + linear(torch.nn.functional.gelu(gate) * up, f"{at}.mlp.down_proj"), f"{at}.mlp_ln")
    return x


def logit(weights, config, ids, types):
    """Of the classifier on the first token."""
    first = hidden_states(weights, config, ids, types)[0]
    w = {name.removeprefix("new."): value.double() for name, value in weights.items()}
    pooled = torch.tanh(w["pooler.dense.weight"] @ first + w["pooler.dense.bias"])
    return w["classifier.weight"] @ pooled + w["classifier.bias"]
