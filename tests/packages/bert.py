"""A small BERT that reads sentences of any length: each batch is padded to its longest."""

import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, DataCollatorWithPadding, PreTrainedTokenizerFast

PACKAGE, EPOCHS = "transformers", 4
WORDS = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(30))]


class Bert(pl.LightningModule):
    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        self.model = BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), num_labels=2, **sizes))

    def training_step(self, batch, batch_idx):
        output = self.model(**batch)
        self.log("train_loss", output.loss)
        return output.loss

    def validation_step(self, batch, batch_idx):
        output = self.model(**batch)
        self.log("val_loss", output.loss)
        self.log("val_acc", (output.logits.argmax(-1) == batch["labels"]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


def module():
    return Bert()


def data():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    random = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(960):
        words = torch.randint(2, len(WORDS), (int(torch.randint(4, 16, (), generator=random)),), generator=random)
        text = " ".join(WORDS[word] for word in words)
        rows.append({**fast(text), "labels": int(words[0] < 17)})
    collate = DataCollatorWithPadding(fast)
    return DataLoader(rows[:800], 32, shuffle=True, collate_fn=collate), DataLoader(rows[800:], 32, collate_fn=collate)
