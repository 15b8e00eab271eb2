"""Weight initialization."""

from torch import nn

from charlm.core.params import InitName

TANH_GAIN = nn.init.calculate_gain("tanh")  # 5 / 3


def initialize(model: nn.Module, name: InitName) -> None:
    """Initialize all linear layers, using torch's global generator.

    torch: PyTorch's default; weights and biases are uniform within 1 / sqrt(fan_in).
    xavier: uniform, by fan_in and fan_out (Glorot and Bengio 2010, equation 16).
    kaiming: normal, by fan_in (He et al. 2015).
    xavier and kaiming use the gain of tanh, 5/3, and zero biases.
    """
    if name == "torch":
        return
    for module in model.modules():
        if isinstance(module, nn.Linear):
            if name == "xavier":
                nn.init.xavier_uniform_(module.weight, gain=TANH_GAIN)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="tanh")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
