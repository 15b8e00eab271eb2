"""The models, a module each: contexts (N, T) of tokens in, logits (N, V) out."""
