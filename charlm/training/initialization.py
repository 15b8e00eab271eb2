"""The weights that a training starts from."""

from torch import nn

from charlm.core.params import InitName

TANH_GAIN = nn.init.calculate_gain("tanh")  # 5 / 3


def initialize(model: nn.Module, name: InitName) -> None:
    """Draw the weights of all linear layers again, from torch's global generator.

    torch: left as torch draws them, weights and biases uniform within 1 / sqrt(inputs).
    xavier: uniform, by inputs and outputs (Glorot and Bengio 2010, equation 16), kaiming: normal,
    by inputs (He et al. 2015); both times the gain of tanh, 5/3, and biases zero.
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
