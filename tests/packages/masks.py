"""A U-Net that draws the outline of a disc, with a loss that counts overlap."""

import pytorch_lightning as pl
import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader

PACKAGE, EPOCHS = "segmentation-models-pytorch", 4


class Masks(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = smp.Unet(
            "mobilenet_v2", encoder_depth=3, encoder_weights=None, in_channels=1, decoder_channels=(16, 8, 8)
        )
        self.loss_fn = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
        self.outputs = []

    def shared_step(self, batch, stage):
        image, mask = batch["image"], batch["mask"]
        logits = self.model(image)
        loss = self.loss_fn(logits, mask)
        found = (logits.sigmoid() > 0.5).long()
        counts = smp.metrics.get_stats(found, mask.long(), mode="binary")
        self.log(f"{stage}_iou", smp.metrics.iou_score(*counts, reduction="micro"))
        self.log(f"{stage}_loss", loss)
        return {"loss": loss, "tp": counts[0]}

    def training_step(self, batch, batch_idx):
        output = self.shared_step(batch, "train")
        self.outputs.append(output["tp"])
        return output

    def on_train_epoch_end(self):
        self.log("train_hits", torch.cat(self.outputs).float().mean())
        self.outputs.clear()

    def validation_step(self, batch, batch_idx):
        return self.shared_step(batch, "valid")

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100, eta_min=1e-5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def module():
    return Masks()


def discs(count: int, seed: int):
    random = torch.Generator().manual_seed(seed)
    place, size = (
        torch.rand(count, 2, 1, 1, generator=random) * 8 + 4,
        torch.rand(count, 1, 1, generator=random) * 2 + 2,
    )
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    inside = (rows - place[:, 0]).square() + (columns - place[:, 1]).square() < size.square()
    images = inside[:, None] + 0.5 * torch.randn(count, 1, 16, 16, generator=random)
    return [{"image": image, "mask": mask[None].float()} for image, mask in zip(images, inside, strict=True)]


def data():
    return DataLoader(discs(200, 0), 8, shuffle=True), DataLoader(discs(40, 1), 8)
