"""pytorch-forecasting's temporal fusion transformer on waves."""

import numpy as np
import pandas as pd
from pytorch_forecasting import QuantileLoss, TemporalFusionTransformer, TimeSeriesDataSet

PACKAGE, EPOCHS = "pytorch-forecasting", 3
STEPS = 60


def waves() -> TimeSeriesDataSet:
    random = np.random.default_rng(0)
    frames = []
    for series in range(20):
        time = np.arange(STEPS)
        value = (1 + series % 3) * np.sin(time / (3 + series % 4) + series) + 0.1 * random.standard_normal(STEPS)
        frames.append(pd.DataFrame({"time": time, "value": value.astype("float32"), "series": str(series)}))
    return TimeSeriesDataSet(
        pd.concat(frames, ignore_index=True),
        time_idx="time",
        target="value",
        group_ids=["series"],
        max_encoder_length=18,
        max_prediction_length=4,
        time_varying_known_reals=["time"],
        time_varying_unknown_reals=["value"],
        static_categoricals=["series"],
    )


def module():
    return TemporalFusionTransformer.from_dataset(
        waves(), hidden_size=8, attention_head_size=1, hidden_continuous_size=4, loss=QuantileLoss(), log_interval=-1
    )


def data():
    series = waves()
    return series.to_dataloader(train=True, batch_size=32), series.to_dataloader(train=False, batch_size=32)
