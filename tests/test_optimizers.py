"""torch's optimizers without what is wrapped around them."""

import torch

from charlm.optimizers import bare_step, sgd
from tests.helpers import run_python


def trained(bare: bool, steps: int = 3) -> tuple[torch.Tensor, torch.optim.Optimizer]:
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(5, 4))
    optimizer = sgd([weight], lr=0.3)
    step = bare_step(optimizer) if bare else optimizer.step
    for _ in range(steps):
        weight.grad = torch.autograd.grad(weight.pow(3).sum(), weight)[0]
        step()
    return weight, optimizer


def test_a_bare_step_is_the_optimizers_own() -> None:
    assert torch.equal(trained(bare=True)[0], trained(bare=False)[0])


def test_a_step_takes_the_learning_rate_times_the_gradient_off() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    weight.grad = torch.tensor([0.5, -1.0])
    bare_step(sgd([weight], lr=0.2))()
    torch.testing.assert_close(weight.detach(), torch.tensor([0.9, 2.2]))
    assert weight.requires_grad


def test_the_learning_rate_of_a_bare_step_may_be_changed() -> None:
    weight, optimizer = trained(bare=True)
    before = weight.detach().clone()
    optimizer.param_groups[0]["lr"] = 0.0
    bare_step(optimizer)()
    assert torch.equal(weight, before)


def test_torchs_compiler_is_not_imported() -> None:
    code = """if True:
        import sys
        from tests.test_optimizers import trained
        _, optimizer = trained(bare=True)
        optimizer.load_state_dict(optimizer.state_dict())
        print("torch._dynamo" in sys.modules)
        optimizer.step()  # as torch has it
        print("torch._dynamo" in sys.modules)
    """
    assert run_python(code).split() == ["False", "True"]
