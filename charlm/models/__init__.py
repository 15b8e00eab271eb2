"""The models, one per module. Each maps contexts (N, T) of tokens to logits (N, V)."""
