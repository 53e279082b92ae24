"""pytorch-tabular: a network for a table of numbers and categories, with its own loaders."""

import numpy as np
import pandas as pd
from pytorch_tabular import TabularModel
from pytorch_tabular.config import DataConfig, OptimizerConfig, TrainerConfig
from pytorch_tabular.models import CategoryEmbeddingModelConfig

PACKAGE, EPOCHS = "pytorch-tabular", 4


def table() -> pd.DataFrame:
    random = np.random.default_rng(0)
    numbers, kinds = random.standard_normal((960, 3)), random.integers(3, size=960)
    wanted = ((numbers[:, 0] * (kinds - 1) + numbers[:, 1]) > 0).astype(int)
    return pd.DataFrame(
        {"a": numbers[:, 0], "b": numbers[:, 1], "c": numbers[:, 2], "kind": kinds.astype(str), "y": wanted}
    )


def both():
    model = TabularModel(
        data_config=DataConfig(target=["y"], continuous_cols=["a", "b", "c"], categorical_cols=["kind"]),
        model_config=CategoryEmbeddingModelConfig(task="classification", layers="32-16", learning_rate=1e-3),
        optimizer_config=OptimizerConfig(),
        trainer_config=TrainerConfig(batch_size=32, accelerator="cpu", checkpoints=None, load_best=False),
        verbose=False,
    )
    data = model.prepare_dataloader(train=table()[:800], validation=table()[800:], seed=0)
    return model.prepare_model(data), data


def module():
    return both()[0]


def data():
    loaders = both()[1]
    return loaders.train_dataloader(), loaders.val_dataloader()
