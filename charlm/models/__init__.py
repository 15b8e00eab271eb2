"""The models, one per module: contexts (N, T) of tokens in, logits (N, V) out."""
