"""The original lesson, in Keras. Reads the files by itself: its environment may have neither torch nor this package."""

import os
import sys
from importlib import import_module
from typing import Any

from measuring import MNIST_FOLDER
from turns import BATCH, EVAL_BATCH, HIDDEN, gate

BACKENDS = {"keras_tensorflow": "tensorflow", "keras_jax": "jax"}


def train(epochs: int, backend: str) -> None:
    """Train as the notebook does, a turn for each epoch."""
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    import numpy as np

    keras: Any = import_module("keras")

    raw = MNIST_FOLDER / "MNIST" / "raw"
    pixels = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((raw / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    images = pixels.reshape(-1, 784).astype("float32") / 255
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((784,)), layers.Dense(HIDDEN, activation="relu"), layers.Dense(10, activation="softmax")]
    )
    optimizer = keras.optimizers.RMSprop(learning_rate=1e-2)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            gate().turn()

        def on_train_end(self, logs: Any = None) -> None:
            gate().end(model.history.history["val_accuracy"][-1])

    model.fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=epochs,
        validation_split=0.2,
        validation_batch_size=EVAL_BATCH,
        verbose=0,
        callbacks=[Turns()],
    )


if __name__ == "__main__":
    gate()
    train(int(sys.argv[2]), BACKENDS[sys.argv[1]])
