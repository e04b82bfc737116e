"""Trains a bigram model on a sentence, and prints its loss: a training script without any framework."""

import argparse
import os
import signal
import time

import torch
from torch import nn

TEXT = "the cat sat on the mat and the dog sat on the log while the sun set on the hill and the moon rose "


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_iters", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--log_interval", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    # What a broken machine or a bug does, at a step of one's choice: "crash:20", "kill:20", "hang:20", "quit:20".
    trouble, _, at = os.environ.get("TROUBLE", ":-1").partition(":")

    torch.manual_seed(options.seed)
    characters = sorted(set(TEXT))
    tokens = torch.tensor([characters.index(character) for character in TEXT])
    model = nn.Sequential(nn.Embedding(len(characters), 16), nn.Linear(16, len(characters)))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    for step in range(1, options.max_iters + 1):
        loss = nn.functional.cross_entropy(model(tokens[:-1]), tokens[1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == int(at):
            if trouble == "crash":
                raise RuntimeError("the data ran out")
            if trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if trouble == "hang":
                time.sleep(3600)
            if trouble == "quit":
                return
        if step % options.log_interval == 0 and not options.quiet:
            print(f"step {step} | loss {loss.item():.2f}", flush=True)
    print("training done")


if __name__ == "__main__":
    main()
