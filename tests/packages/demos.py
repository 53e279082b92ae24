"""Lightning's own demonstration of a recurrent language model, with fewer units: its state goes from batch to batch."""

import torch
from pytorch_lightning.demos import LightningLSTM, SimpleLSTM
from torch.utils.data import DataLoader

PACKAGE, EPOCHS = "pytorch-lightning", 4
WORDS = 20


class Text(LightningLSTM):
    def __init__(self) -> None:
        super().__init__(vocab_size=WORDS)
        self.model = SimpleLSTM(WORDS, ninp=16, nhid=32, nlayers=2)

    def prepare_data(self) -> None:
        """Download nothing."""


def module():
    return Text()


def data():
    random = torch.Generator().manual_seed(0)
    start, stride = torch.randint(WORDS, (488, 1), generator=random), torch.randint(1, 3, (488, 1), generator=random)
    text = (start + stride * torch.arange(13)) % WORDS
    rows = [(line[:-1], line[1:]) for line in text]
    return DataLoader(rows, 16, shuffle=True, drop_last=True), None
