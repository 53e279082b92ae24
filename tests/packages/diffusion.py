"""A denoising diffusion model, and an average of its weights that follows it."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader

from packages.images import pictures

PACKAGE, EPOCHS = "diffusers", 4


class Diffusion(pl.LightningModule):
    def __init__(self, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
        )
        self.scheduler = DDPMScheduler(num_train_timesteps=100)
        self.ema = EMAModel(self.model.parameters(), use_ema_warmup=True)

    def training_step(self, batch, batch_idx):
        images = F.avg_pool2d(batch[0], 2)
        noise = torch.randn_like(images)
        steps = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(images),), device=self.device)
        noisy = self.scheduler.add_noise(images, noise, steps)
        loss = F.mse_loss(self.model(noisy, steps).sample, noise)
        self.log("train/loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.ema.step(self.model.parameters())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.learning_rate)


def module():
    return Diffusion()


def data():
    return DataLoader(pictures(320, 0), 16, shuffle=True), None
