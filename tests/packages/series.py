"""neuralforecast: NHITS, with a data module and a scaler of its own."""

import numpy as np
import pandas as pd
from neuralforecast.losses.pytorch import MAE
from neuralforecast.models import NHITS
from neuralforecast.tsdataset import TimeSeriesDataModule, TimeSeriesDataset

PACKAGE, EPOCHS = "neuralforecast", 100


def module():
    return NHITS(
        h=4,
        input_size=12,
        loss=MAE(),
        max_steps=100,
        windows_batch_size=64,
        mlp_units=3 * [[32, 32]],
        scaler_type="robust",
    )


def data():
    random = np.random.default_rng(0)
    frames = []
    for i in range(16):
        value = np.sin(np.arange(80) / (2 + i % 4) + i) + 0.1 * random.standard_normal(80)
        frames.append(pd.DataFrame({"unique_id": str(i), "ds": np.arange(80), "y": value}))
    dataset, *_ = TimeSeriesDataset.from_df(pd.concat(frames, ignore_index=True))
    return TimeSeriesDataModule(dataset, batch_size=16)
