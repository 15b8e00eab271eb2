"""The gradients written out, against autograd's: the same bytes, from all that it may meet."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from charlm.core.recipe import Recipe
from charlm.data.splits import Part
from charlm.fast.gradients import TreeGradients
from charlm.fast.losses import summed_cross_entropy
from charlm.fast.sharing import Join
from charlm.models.base import LanguageModel
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.training.distributed import Group
from charlm.training.trainer import Trainer
from tests.helpers import small_corpus, small_model, small_split

CORPUS = small_corpus()
WINDOWS = small_split(CORPUS)

OF_TANH = pytest.mark.parametrize("architecture", [FCN, WaveNet])


class Dressed(FCN):
    """The same net, which does not say that it has no other layers."""

    def layers(self) -> None:
        return None


class DressedWaveNet(WaveNet):
    def layers(self) -> None:
        return None


DRESSED = pytest.mark.parametrize(
    ("architecture", "dressed"), [(FCN, Dressed), (WaveNet, DressedWaveNet)]
)


def build(architecture: type[LanguageModel], block_size: int = 8) -> LanguageModel:
    torch.manual_seed(1)
    return architecture(vocab_size=46, block_size=block_size, embed_dim=5, hidden_dim=13)


def batch(count: int, block_size: int = 8, different: int = 46) -> tuple[Tensor, Tensor]:
    contexts = torch.randint(different, (count, block_size), dtype=torch.int32)
    contexts[:, : block_size // 2] = 0
    return contexts, torch.randint(46, (count,))


def gradients(model: LanguageModel) -> list[Tensor]:
    found = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and grad.is_contiguous() for grad in found)
    return [grad.clone() for grad in found if grad is not None]


def written_out(model: LanguageModel, batch: tuple[Tensor, Tensor], of_each: float) -> list[Tensor]:
    """The loss, and the gradient of every parameter."""
    return [TreeGradients(model)(*batch, of_each), *gradients(model)]


def by_autograd(model: LanguageModel, batch: tuple[Tensor, Tensor], of_each: float) -> list[Tensor]:
    contexts, targets = batch
    shared = model.share(contexts)
    loss = summed_cross_entropy(model(shared), shared, targets)
    model.zero_grad()
    loss.backward(loss.new_full((), of_each))
    return [loss.detach(), *gradients(model)]


def assert_same_bytes(some: list[Tensor], others: list[Tensor]) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.numpy().tobytes() == other.numpy().tobytes()


@OF_TANH
@pytest.mark.parametrize("block_size", [1, 2, 8, 16])
@pytest.mark.parametrize(
    ("count", "different"), [(256, 46), (61, 46), (1, 46), (40, 2), (9, 1), (0, 46)]
)
def test_they_are_autograds_to_the_last_bit(
    architecture: type[LanguageModel], block_size: int, count: int, different: int
) -> None:
    """In batches whole and ragged, of contexts that are repeated, and of none."""
    model = build(architecture, block_size)
    taken = batch(count, block_size, different)
    of_each = 1 / max(count, 1)
    ours = written_out(model, taken, of_each)
    assert len(ours) == 1 + len(list(model.parameters()))
    assert_same_bytes(ours, by_autograd(model, taken, of_each))


@OF_TANH
@pytest.mark.parametrize("block_size", [1, 8])
def test_they_are_near_those_of_torch_in_float64(
    architecture: type[LanguageModel], block_size: int
) -> None:
    model = build(architecture, block_size)
    contexts, targets = batch(61, block_size)
    loss, *grads = written_out(model, (contexts, targets), 0.5)
    exact = copy.deepcopy(model).double()
    exact_loss = F.cross_entropy(exact(contexts), targets, reduction="sum")
    exact.zero_grad()
    (0.5 * exact_loss).backward()
    assert loss.item() == pytest.approx(exact_loss.item(), rel=1e-6)
    for ours, theirs in zip(grads, gradients(exact), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


@OF_TANH
def test_each_batch_has_gradients_of_its_own(architecture: type[LanguageModel]) -> None:
    """Not added to those before, nor written over them."""
    model = build(architecture)
    compute = TreeGradients(model)
    first, second = batch(20), batch(30)
    compute(*first, 0.1)
    kept = [parameter.grad for parameter in model.parameters()]
    before = gradients(model)
    compute(*second, 0.1)
    assert_same_bytes(gradients(model), by_autograd(model, second, 0.1)[1:])
    assert_same_bytes([grad for grad in kept if grad is not None], before)


@OF_TANH
def test_they_are_of_the_numbers_that_the_model_has_by_then(
    architecture: type[LanguageModel],
) -> None:
    """After steps of an optimizer, and after other weights were loaded."""
    ours, plain = build(architecture), build(architecture)
    compute = TreeGradients(ours)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.5) for model in (ours, plain)]
    taken = batch(40)
    losses = set()
    for _ in range(4):
        loss = compute(*taken, 0.1)
        assert_same_bytes([loss, *gradients(ours)], by_autograd(plain, taken, 0.1))
        losses.add(loss.item())
        for optimizer in optimizers:
            optimizer.step()
    assert len(losses) == 4
    torch.manual_seed(2)
    other = architecture(**ours.hyperparameters())
    ours.load_state_dict(other.state_dict())
    assert_same_bytes([compute(*taken, 0.1), *gradients(ours)], by_autograd(other, taken, 0.1))


@DRESSED
def test_a_model_with_other_layers_is_refused(
    architecture: type[LanguageModel], dressed: type[LanguageModel]
) -> None:
    TreeGradients(build(architecture))
    with pytest.raises(ValueError, match=f"{dressed.__name__} has other layers"):
        TreeGradients(build(dressed))


@OF_TANH
def test_no_parameter_is_left_out_of_the_layers(architecture: type[LanguageModel]) -> None:
    model = build(architecture)
    layers = model.layers()
    assert layers is not None
    of_layers = [layers.embedding, *layers.levels, layers.output]
    its = [parameter for layer in of_layers for parameter in layer.parameters()]
    assert list(map(id, its)) == list(map(id, model.parameters()))


@OF_TANH
def test_what_there_is_not_is_refused(architecture: type[LanguageModel]) -> None:
    compute = TreeGradients(build(architecture))
    contexts, targets = batch(20)
    for index, tensor in enumerate((contexts, targets)):
        for bad in (-1, 46):
            changed = [contexts.clone(), targets.clone()]
            changed[index][(7, 3)[: tensor.dim()]] = bad
            with pytest.raises(IndexError, match="is not in the vocabulary"):
                compute(*changed, 0.1)
    with pytest.raises(ValueError, match="not as many targets as contexts"):
        compute(contexts, targets[:-1], 0.1)


class OneOfTwo(Group):
    """As if there were another process, which has nothing to say."""

    def wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        return model

    def sum(self, number: Tensor) -> Tensor:
        return number


def trainer(model: LanguageModel, **options: Any) -> Trainer:
    train, val = WINDOWS[Part.TRAIN], WINDOWS[Part.VAL]
    return Trainer(model, train, val, Recipe(lr=0.3, batch_size=50, epochs=4), seed=1, **options)


@DRESSED
def test_training_takes_them_on_a_cpu_alone_and_autograds_otherwise(
    architecture: type[LanguageModel], dressed: type[LanguageModel]
) -> None:
    def takes_them(training: Trainer) -> bool:
        assert isinstance(training._gradients, TreeGradients) or (
            training._gradients == training._backward
        )
        return isinstance(training._gradients, TreeGradients)

    assert takes_them(trainer(small_model(CORPUS, architecture)))
    assert not takes_them(trainer(small_model(CORPUS, dressed)))
    assert not takes_them(trainer(small_model(CORPUS, architecture), group=OneOfTwo(0, 2)))
    assert not takes_them(trainer(small_model(CORPUS, architecture).double()))
    assert not takes_them(trainer(small_model(CORPUS, architecture).to("meta")))


@DRESSED
def test_training_comes_to_the_same_bytes_either_way(
    architecture: type[LanguageModel], dressed: type[LanguageModel]
) -> None:
    """Its last batch is ragged."""
    assert len(WINDOWS[Part.TRAIN]) % 50 > 1
    ours, plain = (trainer(small_model(CORPUS, kind)) for kind in (architecture, dressed))
    assert list(ours.run(3)) == list(plain.run(3))
    assert_same_bytes(list(ours.model.state_dict().values()), [*plain.model.state_dict().values()])


@DRESSED
def test_a_training_taken_up_again_goes_on_from_the_weights_that_it_was_given(
    architecture: type[LanguageModel], dressed: type[LanguageModel]
) -> None:
    """From a state of the other way too."""
    whole = trainer(small_model(CORPUS, architecture))
    list(whole.run(4))
    for first_kind, second_kind in ((architecture, architecture), (dressed, architecture)):
        first, second = (
            trainer(small_model(CORPUS, kind, seed=seed))
            for kind, seed in ((first_kind, 1), (second_kind, 2))
        )
        list(first.run(2))
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        list(second.run(4))
        assert second.history == whole.history
        weights = [list(done.model.state_dict().values()) for done in (second, whole)]
        assert_same_bytes(*weights)


class Dropped(FCN):
    """A student's: the same layers, and something between them."""

    def tree_logits(self, joins: Sequence[Join]) -> Tensor:
        return F.dropout(super().tree_logits(joins), 0.5, self.training)


def test_a_model_that_changes_what_another_computes_has_not_its_layers() -> None:
    assert build(Dropped).layers() is None
    assert not TreeGradients.suit(build(Dropped))
    assert TreeGradients.suit(build(FCN))


@OF_TANH
def test_what_is_frozen_stays_as_it_is(architecture: type[LanguageModel]) -> None:
    model = small_model(CORPUS, architecture)
    model.embedding.weight.requires_grad_(False)
    before = model.embedding.weight.clone()
    recipe = Recipe(lr=0.2, batch_size=16, epochs=2)
    trainer = Trainer(model, WINDOWS[Part.TRAIN], WINDOWS[Part.VAL], recipe, seed=1)
    (first, last) = trainer.run(2)
    assert last.train_loss < first.train_loss
    assert torch.equal(model.embedding.weight, before)
