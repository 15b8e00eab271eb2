"""The plain notebook loop that the pipeline is measured against.

It does what a course's notebook does, with torch's default threads and kernels and without
`charlm`: all windows in one int64 tensor, `TensorDataset`, `random_split`, a shuffling
`DataLoader`, eager SGD steps; names are sampled one at a time. To run all of it:

    python -m benchmarks.notebook_loop data/prenoms.txt --epochs 50
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

BLOCK_SIZE = 8
BATCH_SIZE = 256
LR = 0.2


class FlattenConsecutive(nn.Module):
    """Concatenate pairs of neighbors: (N, T, C) -> (N, T // 2, 2 * C), or (N, 2 * C) for T = 2."""

    def forward(self, x: Tensor) -> Tensor:
        N, T, C = x.shape
        x = x.reshape(N, T // 2, C * 2)
        return x.squeeze(1) if T == 2 else x


def fully_connected_net(vocab_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Embedding(vocab_size, 10),
        nn.Flatten(),
        nn.Linear(10 * BLOCK_SIZE, 300),
        nn.Tanh(),
        nn.Linear(300, vocab_size),
    )


def wavenet(vocab_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Embedding(vocab_size, 10),
        *(FlattenConsecutive(), nn.Linear(20, 128), nn.Tanh()),
        *(FlattenConsecutive(), nn.Linear(256, 128), nn.Tanh()),
        *(FlattenConsecutive(), nn.Linear(256, 128), nn.Tanh()),
        nn.Linear(128, vocab_size),
    )


MODELS = {"fcn": fully_connected_net, "wavenet": wavenet}


def read_windows(path: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Return contexts (W, 8), targets (W,) and the characters; token 0 ends a name."""
    names = list(dict.fromkeys(path.read_text(encoding="utf-8").split()))
    characters = sorted(set("".join(names)))
    token_of = {character: token for token, character in enumerate(characters, start=1)}
    contexts, targets = [], []
    for name in names:
        context = [0] * BLOCK_SIZE
        for token in [*(token_of[character] for character in name), 0]:
            contexts.append(context)
            targets.append(token)
            context = [*context[1:], token]
    return torch.tensor(contexts), torch.tensor(targets), characters


def sizes(count: int) -> list[int]:
    """Return the sizes of training, validation and test sets: 80/10/10."""
    first, second = round(0.8 * count), round(0.9 * count)
    return [first, second - first, count - second]


def loaders(
    contexts: Tensor, targets: Tensor, batch_size: int = BATCH_SIZE
) -> list[DataLoader[tuple[Tensor, ...]]]:
    """Return loaders of training, validation and test windows, split 80/10/10 at random."""
    dataset = TensorDataset(contexts, targets)
    train, val, test = random_split(dataset, sizes(len(dataset)))
    return [
        DataLoader(train, batch_size=batch_size, shuffle=True),
        DataLoader(val, batch_size=batch_size),
        DataLoader(test, batch_size=batch_size),
    ]


def train_epoch(
    model: nn.Module, batches: Iterable[list[Tensor]], optimizer: torch.optim.Optimizer
) -> list[float]:
    """Make a pass over the batches and return the loss of each."""
    losses = []
    model.train()
    for contexts, targets in batches:
        loss = F.cross_entropy(model(contexts), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def mean_loss(model: nn.Module, batches: Iterable[list[Tensor]]) -> float:
    model.eval()
    losses = [F.cross_entropy(model(contexts), targets).item() for contexts, targets in batches]
    return sum(losses) / len(losses)


@torch.no_grad()
def sample(model: nn.Module, characters: list[str]) -> str:
    """Sample a name, one character at a time."""
    model.eval()
    context, name = [0] * BLOCK_SIZE, ""
    while True:
        probabilities = F.softmax(model(torch.tensor([context])), dim=1)
        token = int(torch.multinomial(probabilities, 1).item())
        if token == 0:
            return name
        name += characters[token - 1]
        context = [*context[1:], token]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.notebook_loop", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", type=Path, help="a list with one name per line")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each training")
    parser.add_argument("--count", type=int, default=1000, help="names to sample from each model")
    arguments = parser.parse_args()
    contexts, targets, characters = read_windows(arguments.names)
    train, val, test = loaders(contexts, targets)
    for name, build in MODELS.items():
        model = build(len(characters) + 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        for epoch in range(1, arguments.epochs + 1):
            losses = train_epoch(model, train, optimizer)
            print(name, epoch, sum(losses) / len(losses), mean_loss(model, val))
        print(name, "test", mean_loss(model, test))
        print(name, [sample(model, characters) for _ in range(arguments.count)][:5])


if __name__ == "__main__":
    main()
