"""Keras's RMSprop beside torch's: does a rate of 1 stall, and what does a step cost?

    python benchmarks/optimizer.py --seeds 8    # about eight minutes on a 2-core x86 CPU, one thread

The network, data and constants of configs/mnist.yaml in a plain loop of ten epochs.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from unstall.data import MNISTDataModule
from unstall.network import MLP
from unstall.optimizer import KerasRMSprop

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "KerasRMSprop": KerasRMSprop,
    "torch.optim.RMSprop": lambda weights, lr: torch.optim.RMSprop(weights, lr=lr, alpha=0.9, eps=1e-7),
}


def train(name: str, seed: int, data_dir: str) -> list[float]:
    """Validation accuracy after each of ten epochs at a rate of 1."""
    torch.manual_seed(seed)
    data = MNISTDataModule(data_dir=data_dir)
    data.setup("fit")
    train, val = data.train_dataloader().dataset, data.val_dataloader().dataset
    inputs, held_out = train.images / 255, val.images / 255  # type: ignore[attr-defined]
    labels, held_labels = train.labels, val.labels  # type: ignore[attr-defined]
    network = MLP([784, 512, 10])
    optimizer = OPTIMIZERS[name](network.parameters(), lr=1.0)
    accuracies = []
    for _ in range(10):
        for chosen in torch.randperm(len(inputs)).split(128):  # type: ignore[no-untyped-call]
            loss = F.cross_entropy(network(inputs[chosen]), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        with torch.no_grad():
            accuracies.append(float((network(held_out).argmax(1) == held_labels).float().mean()))
    return accuracies


def milliseconds(call: Callable[[], object], times: int = 200) -> float:
    """Median over so many calls."""

    def timed() -> float:
        began = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - began)

    return median(timed() for _ in range(times))


def step_of(name: str, lit: Tensor) -> Callable[[], object]:
    """A step on the base network's weights; pixels that are not lit have no gradient."""
    network = MLP([784, 512, 10])
    for weight in network.parameters():
        weight.grad = 1e-3 * torch.rand_like(weight)
    first = next(network.parameters()).grad
    assert first is not None
    first *= lit
    optimizer = OPTIMIZERS[name](network.parameters(), lr=1e-9)
    return lambda: optimizer.step()


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--data_dir", default=str(Path(__file__).parents[1] / "data"))
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    zeros, ones = torch.zeros(512, 784), torch.ones(512, 784)
    print("one thread, ms:", end=" ")
    print(f"sqrt of ones {milliseconds(ones.sqrt):.2f}, of zeros {milliseconds(zeros.sqrt):.2f};", end=" ")
    print(f"rsqrt of ones {milliseconds(ones.rsqrt):.2f}, of zeros {milliseconds(zeros.rsqrt):.2f}")
    lit = (torch.rand(784) > 0.15).float()  # of MNIST's pixels about 15 % are dark in every image
    for name in OPTIMIZERS:
        print(f"{name}: {milliseconds(step_of(name, lit)):.2f} ms a step")
    for name in OPTIMIZERS:
        for seed in range(options.seeds):
            accuracies = train(name, seed, options.data_dir)
            print(f"{name}, seed {seed}: " + " ".join(f"{accuracy:.3f}" for accuracy in accuracies), flush=True)


if __name__ == "__main__":
    main()
