"""Trains a small classifier with Lightning, and logs to a CSV file and to TensorBoard."""

import argparse
import os
import signal
import sys
import time

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    """Tells on which side of a plane a point lies."""

    def __init__(self, lr: float, trouble: str) -> None:
        super().__init__()
        self.lr = lr
        self.trouble, _, step = trouble.partition(":")
        self.trouble_step = int(step or -1)
        self.network = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        points, sides = batch
        loss = nn.functional.cross_entropy(self.network(points), sides)
        self.log("train_loss", loss)
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
        if self.global_step != self.trouble_step:
            return
        if self.trouble == "crash":
            raise RuntimeError("the data ran out")
        if self.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.trouble == "hang":
            time.sleep(3600)
        if self.trouble == "quit":
            sys.exit(0)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", default="lightning_logs")
    parser.add_argument("--log_every_n_steps", type=int, default=5)
    parser.add_argument("--trouble", default="", help="crash:20, kill:20, hang:20 or quit:20")
    options = parser.parse_args()

    pl.seed_everything(options.seed)
    points = torch.randn(2048, 8)
    loader = DataLoader(TensorDataset(points, (points.sum(dim=1) > 0).long()), batch_size=64, shuffle=True)
    trainer = pl.Trainer(
        max_steps=options.max_steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        default_root_dir=options.output_dir,
        logger=[CSVLogger(options.output_dir, name="csv"), TensorBoardLogger(options.output_dir, name="tensorboard")],
        log_every_n_steps=options.log_every_n_steps,
        enable_progress_bar=False,
    )
    trainer.fit(Classifier(options.lr, options.trouble), loader)
    print(f"trained {trainer.global_step} steps")


if __name__ == "__main__":
    main()
