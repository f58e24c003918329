"""The names of TransformerLens' hook points, by what they carry."""

# Activations `[row, position, neuron]` and `[row, position, head, d_head]` (`k` and `v`: by key/value group).
# `attn` and `mlp`: what they add to the residual stream, `[row, position, d_model]`; `pre`: the stream that a
# layer reads; `embed`: the tokens' embedding; `pattern`: attention's weights `[row, head, position, position]`.
POINTS = {
    "neuron": "blocks.{}.mlp.hook_post",
    "head": "blocks.{}.attn.hook_z",
    "q": "blocks.{}.attn.hook_q",
    "k": "blocks.{}.attn.hook_k",
    "v": "blocks.{}.attn.hook_v",
    "pattern": "blocks.{}.attn.hook_pattern",
    "attn": "blocks.{}.hook_attn_out",
    "mlp": "blocks.{}.hook_mlp_out",
    "pre": "blocks.{}.hook_in",
    "embed": "hook_embed",
}
