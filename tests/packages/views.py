"""SimCLR: two random views of each picture are to be told from those of others, without labels."""

import pytorch_lightning as pl
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

PACKAGE, EPOCHS = "lightly", 8
SEEDS = 5  # 64 steps of it waver by a tenth of all progress, from seed to seed and from rate to rate


class SimCLR(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.projection_head = SimCLRProjectionHead(32, 32, 16)
        self.criterion = NTXentLoss(temperature=0.5)

    def training_step(self, batch, batch_index):
        (first, second), _ = batch
        loss = self.criterion(*(self.projection_head(self.backbone(view)) for view in (first, second)))
        self.log("train_loss_ssl", loss)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=6e-2, momentum=0.9, weight_decay=5e-4)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)]


class Pictures(Dataset):
    """Stripes of many colours and widths."""

    transform = SimCLRTransform(input_size=16, min_scale=0.5)

    def __len__(self) -> int:
        return 256

    def __getitem__(self, index: int):
        random = torch.Generator().manual_seed(index)
        colours = torch.rand(2, 3, generator=random)
        width = 2 + index % 7
        stripes = (torch.arange(20) // width % 2)[:, None].expand(20, 20)
        return self.transform(Image.fromarray((colours[stripes] * 255).byte().numpy())), index % 7


def module():
    return SimCLR()


def data():
    return DataLoader(Pictures(), 32, shuffle=True, drop_last=True), None
