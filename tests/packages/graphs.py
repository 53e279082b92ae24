"""A graph isomorphism network on random graphs: a batch is one large graph."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GIN, MLP, global_add_pool

PACKAGE, EPOCHS = "torch-geometric", 5


class Graphs(pl.LightningModule):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.gnn = GIN(4, 32, num_layers=3, dropout=0.1, jk="cat")
        self.classifier = MLP([32, 32, 2], norm="batch_norm", dropout=0.1)

    def forward(self, batch):
        return self.classifier(global_add_pool(self.gnn(batch.x, batch.edge_index), batch.batch))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch.y)

    def validation_step(self, batch, batch_idx):
        answers = self(batch)
        self.log("val_loss", F.cross_entropy(answers, batch.y), batch_size=batch.num_graphs)
        self.log("val_acc", (answers.argmax(-1) == batch.y).float().mean(), batch_size=batch.num_graphs)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def module():
    return Graphs()


def data():
    random = torch.Generator().manual_seed(0)
    graphs = []
    for i in range(960):
        nodes = int(torch.randint(6, 16, (), generator=random))
        edges = torch.randint(nodes, (2, nodes * (2 + i % 2)), generator=random)
        graphs.append(Data(x=torch.randn(nodes, 4, generator=random), edge_index=edges, y=torch.tensor([i % 2])))
    return DataLoader(graphs[:800], 32, shuffle=True), DataLoader(graphs[800:], 32)
