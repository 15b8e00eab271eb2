"""The hyperbolic tangent by NumPy, against torch's."""

import torch

from charlm.elementwise import tanh


def test_tanh_and_its_gradient_are_those_of_torch() -> None:
    values = torch.cat((torch.linspace(-12, 12, 4001), torch.tensor([0.0, 1e-30, -1e-8, 1e4])))
    gradients = []
    for function in (tanh, torch.tanh):
        x = values.clone().requires_grad_()
        y = function(x)
        y.cos().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(tanh(values), torch.tanh(values), rtol=1e-6, atol=0)
    torch.testing.assert_close(*gradients)


def test_what_is_not_finite_goes_through() -> None:
    inf = torch.inf
    assert tanh(torch.tensor([inf, -inf])).tolist() == [1, -1]
    assert tanh(torch.tensor([torch.nan])).isnan().all()


def test_other_numbers_than_float32_are_left_to_torch() -> None:
    x = torch.randn(7, dtype=torch.float64)
    assert torch.equal(tanh(x), torch.tanh(x))
