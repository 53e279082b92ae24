"""scvi-tools: a variational autoencoder of counts of genes."""

import numpy as np
from anndata import AnnData
from scvi.dataloaders import DataSplitter
from scvi.model import SCVI
from scvi.train import TrainingPlan

PACKAGE, EPOCHS = "scvi-tools", 6


def model() -> SCVI:
    random = np.random.default_rng(0)
    kinds = random.gamma(2.0, 1.0, (4, 50))
    counts = random.poisson(kinds[np.arange(800) % 4]).astype("float32")
    cells = AnnData(counts)
    SCVI.setup_anndata(cells)
    return SCVI(cells, n_hidden=32, n_latent=4)


def module():
    return TrainingPlan(model().module)


def data():
    return DataSplitter(model().adata_manager, train_size=0.8, batch_size=32)
