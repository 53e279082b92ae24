"""The cells on which the diagnosis is measured: a seeded draw, half of them spoilt, in groups that grew one by one."""

import dataclasses
import random

from networks import OPTIMIZERS

DEVELOPMENT = "mlp", "deep"
"""Networks on which thresholds were chosen at first, on MNIST."""
FRESH = "layernorm", "residual"
"""Networks on which no threshold was chosen; what their runs showed mended two rules (docs/diagnosis.md)."""
BLIND = "dropout", "concatenated"
"""Networks whose runs were made last; no rule of the signals was changed after them, and one of the forks was."""
SPOILS = ["x20", "dead", "unscaled", "random labels", "few samples", "zero"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a group of runs has in common."""

    network: str
    activation: str
    optimizer: str
    batch_size: int
    spoilt: str
    data: str
    seed: int


def cells() -> list[Cell]:
    """Return the sampled cells in random order, each followed by its spoilt sibling."""
    draw = random.Random(0)
    chosen = []
    spoils = {
        "mlp": ["x20", "zero", "dead", "unscaled", "random labels", "one unit", "ten sigmoid layers", "few samples"],
        "deep": SPOILS,
        "batchnorm": ["random labels", "few samples", "zero"],
        "cnn": SPOILS,
    }
    names = list(OPTIMIZERS)
    plan = [
        (network, data, index)
        for network, data, count in (
            ("mlp", "mnist", 10), ("deep", "mnist", 8), ("batchnorm", "mnist", 6), ("cnn", "mnist", 6),
            ("mlp", "digits", 6), ("deep", "digits", 3),
        )
        for index in range(count)
    ]  # fmt: skip
    draw.shuffle(plan)
    for network, data, index in plan:
        optimizer = names[index % len(names)]
        sizes = [128, 1, 128, 8, 32, 1024] if network in DEVELOPMENT else [128, 8, 128, 32]
        size = sizes[index % len(sizes)] if (network, data) != ("mlp", "digits") else (128, 8, 32)[index % 3]
        size = 32 if size == 1024 and (network == "cnn" or data == "digits") else size
        activation = draw.choice(["relu", "relu", "tanh", "sigmoid"])
        base = Cell(network, activation, optimizer, size, "", data, index % 3)
        spoilt = spoils[network][index % len(spoils[network])]
        size = 32 if size == 1 else size
        activation = {"dead": "relu", "zero": "relu", "ten sigmoid layers": "sigmoid"}.get(spoilt, activation)
        chosen += [base, dataclasses.replace(base, spoilt=spoilt, batch_size=size, activation=activation)]
    return chosen


def fresh_cells() -> list[Cell]:
    """Return cells of networks, a data set and seeds that no threshold was chosen on."""
    names = ["SGD", "momentum", "KerasRMSprop", "Adam", "AdamW", "Adagrad"]
    return _pairs(FRESH, ["mnist"] * 4 + ["synthetic"] * 3, names, seed=3)


def blind_cells() -> list[Cell]:
    """Return cells of other networks, another data set and other seeds still."""
    names = ["Adam", "KerasRMSprop", "Adagrad", "momentum", "SGD", "AdamW"]
    return _pairs(BLIND, ["mnist"] * 3 + ["spheres"] * 3, names, seed=6)


def _pairs(networks: tuple[str, ...], data_sets: list[str], names: list[str], seed: int) -> list[Cell]:
    """Return one cell for each network and data set, each followed by its spoilt sibling."""
    draw = random.Random(seed)
    plan = [(network, data) for data in data_sets for network in networks]
    chosen = []
    for index, (network, data) in enumerate(plan):
        size = (128, 32, 8, 128)[index // 2 % 4]
        activation = draw.choice(["relu", "relu", "tanh", "sigmoid"])
        base = Cell(network, activation, names[index % 6], size, "", data, seed + index % 3)
        spoilt = SPOILS[(5 * index + index // 6) % 6]
        if network == "layernorm" and spoilt == "dead":  # normalised units are not
            spoilt = "x20"
        relu = spoilt in ("dead", "zero")
        chosen += [base, dataclasses.replace(base, spoilt=spoilt, activation="relu" if relu else activation)]
    return chosen


def rates(cell: Cell) -> list[float]:
    """Return nine rates a decade apart, moved by half a decade in every other seed."""
    highest = 2 if cell.optimizer in ("SGD", "momentum") else 1
    return [10 ** (highest - 0.5 * (cell.seed % 2) - decade) for decade in range(9)]
