"""A residual network with timm's optimizer, whose groups differ in weight decay, under a rate that rises and falls."""

import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader, TensorDataset

PACKAGE, EPOCHS = "timm", 5


class Images(pl.LightningModule):
    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = timm.create_model("test_resnet", num_classes=4, in_chans=1)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0]), batch[1], label_smoothing=0.1)

    def validation_step(self, batch, batch_idx):
        answers = self.model(batch[0])
        self.log_dict(
            {"val_loss": F.cross_entropy(answers, batch[1]), "val_acc": (answers.argmax(1) == batch[1]).float().mean()}
        )

    def configure_optimizers(self):
        optimizer = create_optimizer_v2(self, opt="adamw", lr=self.hparams.lr, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.hparams.lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}


def module():
    return Images()


def pictures(count: int, seed: int):
    """Bright bars at one of four heights, in noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=random)
    images = torch.randn(count, 1, 16, 16, generator=random)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 * label + 1 : 4 * label + 3] += 1
    return TensorDataset(images, labels)


def data():
    return DataLoader(pictures(320, 0), 16, shuffle=True), DataLoader(pictures(64, 1), 16)
