"""Keras's RMSprop beside torch's: does a rate of 1 stall, and what does a step cost?

    python benchmarks/optimizer.py --seeds 8    # about eight minutes on a 2-core x86 CPU, one thread

The network, data and constants of configs/mnist.yaml in a plain loop of ten epochs.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from lesson.network import MLP
from measuring import MNIST_FOLDER, median_seconds
from networks import OPTIMIZERS, evaluate, take_step
from problems import mnist

COMPARED = {"KerasRMSprop": OPTIMIZERS["KerasRMSprop"], "torch.optim.RMSprop": OPTIMIZERS["RMSprop"]}


def train(name: str, seed: int, data_dir: str) -> list[float]:
    """Validation accuracy after each of ten epochs at a rate of 1."""
    torch.manual_seed(seed)
    inputs, labels, held_out, held_labels = mnist(data_dir)
    network = MLP([784, 512, 10])
    optimizer = COMPARED[name](network.parameters(), lr=1.0)
    accuracies = []
    for _ in range(10):
        for chosen in torch.randperm(len(inputs)).split(128):  # type: ignore[no-untyped-call]
            take_step(network, optimizer, inputs[chosen], labels[chosen])
        accuracies.append(evaluate(network, held_out, held_labels)[1])
    return accuracies


def milliseconds(call: Callable[[], object]) -> str:
    """Median over 200 calls."""
    return f"{1e3 * median_seconds(call, 200):.2f}"


def step_of(name: str, lit: Tensor) -> Callable[[], object]:
    """A step on the base network's weights; pixels that are not lit have no gradient."""
    network = MLP([784, 512, 10])
    for weight in network.parameters():
        weight.grad = 1e-3 * torch.rand_like(weight)
    first = next(network.parameters()).grad
    assert first is not None
    first *= lit
    optimizer = COMPARED[name](network.parameters(), lr=1e-9)
    return lambda: optimizer.step()


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--data_dir", default=str(MNIST_FOLDER))
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    zeros, ones = torch.zeros(512, 784), torch.ones(512, 784)
    print("one thread, ms:", end=" ")
    print(f"sqrt of ones {milliseconds(ones.sqrt)}, of zeros {milliseconds(zeros.sqrt)};", end=" ")
    print(f"rsqrt of ones {milliseconds(ones.rsqrt)}, of zeros {milliseconds(zeros.rsqrt)}")
    lit = (torch.rand(784) > 0.15).float()  # of MNIST's pixels about 15 % are dark in every image
    for name in COMPARED:
        print(f"{name}: {milliseconds(step_of(name, lit))} ms a step")
    for name in COMPARED:
        for seed in range(options.seeds):
            accuracies = train(name, seed, options.data_dir)
            print(f"{name}, seed {seed}: " + " ".join(f"{accuracy:.3f}" for accuracy in accuracies), flush=True)


if __name__ == "__main__":
    main()
