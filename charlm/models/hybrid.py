"""The hybrid: n-gram counts corrected by compact WaveNets.

N batch, T context length, C channels, V vocabulary, K orders.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.kneser_ney import LEVELS, KneserNey

ORDERS = (2, 4)
"""The orders of the counts that the nets see, in addition to the highest order T."""


class Hybrid(LanguageModel):
    """Nets on top of n-gram counts: logits(c) = f(c) + sum_k trust_k(c) log P_k(. | c).

    P_k is the probability by Kneser-Ney counts of contexts of at most k tokens. This is a
    log-linear model (Rosenfeld 1996) whose weights are computed by a net. The probabilities of
    several such nets, each trained with its own loss, are averaged: an ensemble (Hansen and
    Salamon 1990).

    In training, each window is left out of the counts. Otherwise its target would be far more
    likely than that of a new window, and the nets would rely on that. This way, they learn to
    continue names that are not in the list.

    Args:
        vocab_size: V.
        block_size: T.
        channels: C.
        dropout: dropout probability.
        members: number of nets.

    Raises ValueError if `block_size` is not a power of two, or `members` is less than 1.
    """

    title = "Hybrid"

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        channels: int = 72,
        dropout: float = 0.0,
        members: int = 1,
    ) -> None:
        super().__init__()
        if members < 1:
            raise ValueError(f"members is {members}; it must be at least 1")
        self.orders = [*(order for order in ORDERS if order < block_size), block_size]
        self.counts = KneserNey(vocab_size, block_size)
        sizes = (vocab_size, block_size, len(self.orders), channels, dropout)
        self.corrections = nn.ModuleList(Correction(*sizes) for _ in range(members))

    def forward(self, contexts: Tensor, targets: Tensor | None = None) -> Tensor | list[Tensor]:
        """Return logits (N, V); in training, an ensemble returns a list of them, one per member."""
        log_probs, level = self.counts.look_up(contexts, self.orders, targets)  # (N, K, V), (N,)
        log_probs = log_probs.to(next(self.parameters()).dtype)
        roots = torch.exp(0.5 * log_probs).flatten(1)  # (N, K V)
        each = [correct(contexts, log_probs, roots, level) for correct in self.corrections]
        if len(each) == 1:
            return each[0]
        if self.training:
            return each
        probs = [F.softmax(logits, dim=-1) for logits in each]
        return torch.log(sum(probs[1:], probs[0]) / len(probs))


class Correction(nn.Module):
    """The net of a member: maps contexts and the log-probabilities of the counts to logits.

    A gated layer combines the features of a compact WaveNet with the square roots of the
    probabilities. f and trust are linear functions of the result.
    """

    def __init__(
        self, vocab_size: int, block_size: int, orders: int, channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.net = CompactWaveNet(vocab_size, block_size, channels, dropout=dropout)
        self.level = nn.Embedding(LEVELS * (block_size + 1), channels)
        widths = (channels, orders * vocab_size)
        self.value = nn.ModuleList(nn.Linear(width, channels) for width in widths)
        self.gate = nn.ModuleList(nn.Linear(width, channels) for width in widths)
        self.trust = nn.Linear(channels, orders)
        # Initially, the net adds nearly nothing to the counts.
        *_, last_norm = self.net.norms.parameters()
        nn.init.constant_(last_norm, 0.05)
        for weights in (self.level.weight, *self.value.parameters(), *self.trust.parameters()):
            nn.init.zeros_(weights)
        nn.init.constant_(self.trust.bias[-1], 0.6)

    def forward(self, contexts: Tensor, log_probs: Tensor, roots: Tensor, level: Tensor) -> Tensor:
        x = self.net.features(contexts) + self.level(level)  # (N, C)
        value = self.value[0](x) + self.value[1](roots)
        gate = self.gate[0](x) + self.gate[1](roots)
        x = x + self.net.dropout(value * gate)
        logits: Tensor = self.net.output(x)  # (N, V)
        for k, trust in enumerate(self.trust(x).chunk(len(self.trust.bias), dim=1)):  # (N, 1)
            logits = logits + trust * log_probs[:, k]
        return logits
