"""The hybrid: n-gram counts, corrected by a compact WaveNet.

N batch, T context length, C channels, V vocabulary.
"""

from torch import Tensor, nn

from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.kneser_ney import LEVELS, KneserNey


class Hybrid(LanguageModel):
    """A net on top of n-gram counts: logits(c) = f(c) + trust(c) log P(. | c).

    P is that of Kneser-Ney smoothing, f a compact WaveNet, and trust(c) depends on the net's
    features and on how often the context was counted. It is a log-linear model (Rosenfeld 1996)
    whose weights a net computes. In training each window is left out of the counts: in them, its
    own target would be far more likely than that of a new window, and the net would rely on that.

    Raises ValueError if `block_size` is not a power of two.
    """

    title = "Hybrid"

    def __init__(
        self, vocab_size: int, block_size: int, channels: int = 72, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.counts = KneserNey(vocab_size, block_size)
        self.net = CompactWaveNet(vocab_size, block_size, channels, dropout)
        *_, last_norm = self.net.norms.parameters()
        nn.init.constant_(last_norm, 0.05)  # so that it starts as the counts
        self.trust = nn.Linear(channels, 1)
        nn.init.constant_(self.trust.bias, 0.6)
        self.confidence = nn.Embedding(LEVELS * (block_size + 1), 1)
        nn.init.zeros_(self.confidence.weight)

    def forward(self, contexts: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.net.features(contexts)  # (N, C)
        log_probs, level = self.counts.look_up(contexts, targets)  # (N, V) and (N,)
        trust = self.trust(x) + self.confidence(level)  # (N, 1)
        return self.net.output(x) + trust * log_probs  # (N, V)
