"""chemprop's message passing network on small molecules, as its makers train it."""

import itertools

from chemprop import data as chem
from chemprop import models, nn

PACKAGE, EPOCHS = "chemprop", 6


def module():
    return models.MPNN(
        nn.BondMessagePassing(d_h=64),
        nn.MeanAggregation(),
        nn.RegressionFFN(input_dim=64, hidden_dim=64),
        batch_norm=True,
    )


def data():
    parts = ["C", "N", "O", "CC", "C(F)", "C(=O)", "C(Cl)", "CO"]
    written = ["".join(chosen) for chosen in itertools.product(parts, repeat=3)]
    points = [
        chem.MoleculeDatapoint.from_smi(smiles + "C", [(smiles.count("O") - smiles.count("N")) / 2])
        for smiles in written
    ]
    training = chem.MoleculeDataset([point for i, point in enumerate(points) if i % 5])
    validation = chem.MoleculeDataset(points[::5])
    return (
        chem.build_dataloader(training, batch_size=16, num_workers=0),
        chem.build_dataloader(validation, batch_size=16, num_workers=0, shuffle=False),
    )
