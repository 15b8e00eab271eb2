"""The hybrid: n-gram counts, corrected by a compact WaveNet.

N batch, T context length, C channels, V vocabulary, K orders.
"""

import torch
from torch import Tensor, nn

from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.kneser_ney import LEVELS, KneserNey

ORDERS = (2, 4)
"""The orders of the counts that the net sees, and the highest, T."""


class Hybrid(LanguageModel):
    """A net on top of n-gram counts: logits(c) = f(c) + sum_k trust_k(c) log P_k(. | c).

    P_k is that of Kneser-Ney smoothing with contexts of at most k tokens. A gated layer joins the
    features of a compact WaveNet with the square roots of these probabilities, and f and trust are
    linear in what results: a log-linear model (Rosenfeld 1996) whose weights a net computes.

    In training each window is left out of the counts: in them, its own target would be far more
    likely than that of a new window, and the net would rely on that. So the net learns what
    follows in a name that is not in the list.

    Raises ValueError if `block_size` is not a power of two.
    """

    title = "Hybrid"

    def __init__(
        self, vocab_size: int, block_size: int, channels: int = 72, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.orders = [*(order for order in ORDERS if order < block_size), block_size]
        self.counts = KneserNey(vocab_size, block_size)
        self.net = CompactWaveNet(vocab_size, block_size, channels, dropout=dropout)
        self.level = nn.Embedding(LEVELS * (block_size + 1), channels)
        K = len(self.orders)
        self.value = nn.ModuleList(nn.Linear(each, channels) for each in (channels, K * vocab_size))
        self.gate = nn.ModuleList(nn.Linear(each, channels) for each in (channels, K * vocab_size))
        self.trust = nn.Linear(channels, K)
        # It starts as the counts alone.
        *_, last_norm = self.net.norms.parameters()
        nn.init.constant_(last_norm, 0.05)
        for weights in (self.level.weight, *self.value.parameters(), *self.trust.parameters()):
            nn.init.zeros_(weights)
        nn.init.constant_(self.trust.bias[-1], 0.6)

    def forward(self, contexts: Tensor, targets: Tensor | None = None) -> Tensor:
        log_probs, level = self.counts.look_up(contexts, self.orders, targets)  # (N, K, V), (N,)
        log_probs = log_probs.to(self.trust.weight.dtype)
        roots = torch.exp(0.5 * log_probs).flatten(1)  # (N, K V)
        x = self.net.features(contexts) + self.level(level)  # (N, C)
        value = self.value[0](x) + self.value[1](roots)
        gate = self.gate[0](x) + self.gate[1](roots)
        x = x + self.net.dropout(value * gate)
        logits = self.net.output(x)  # (N, V)
        for k, trust in enumerate(self.trust(x).chunk(len(self.orders), dim=1)):  # (N, 1)
            logits = logits + trust * log_probs[:, k]
        return logits
