"""Trains a small network in as many processes as `accelerate launch` starts, and writes a line of JSON a step."""

import argparse
import json
import os
import signal
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32])
    options = parser.parse_args()
    # "crash:20" and the like; in the second process, as far as there is one.
    trouble, _, at = os.environ.get("TROUBLE", ":-1").partition(":")

    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    is_victim = accelerator.process_index == accelerator.num_processes - 1
    inputs = torch.randn(512, 4)
    targets = inputs.sum(dim=1, keepdim=True)
    sizes = [4, *options.sizes]
    hidden = [layer for pair in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(*pair), nn.Tanh())]
    model = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=64, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    log = options.out / "metrics.jsonl"
    if accelerator.is_main_process:
        options.out.mkdir(parents=True, exist_ok=True)
        log.write_text("")
    step = 0
    while step < options.num_steps:
        for batch, target in loader:
            loss = nn.functional.mse_loss(model(batch), target)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            if step == int(at) and is_victim:
                if trouble == "crash":
                    raise RuntimeError("the data ran out")
                if trouble == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if trouble == "hang":
                    time.sleep(3600)
            loss = accelerator.gather(loss.detach()).mean().item()
            if accelerator.is_main_process:
                with log.open("a") as file:
                    file.write(
                        json.dumps({"step": step, "train_loss": loss, "world": accelerator.num_processes}) + "\n"
                    )
            if step == options.num_steps:
                break
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with log.open("a") as file:
            file.write(json.dumps({"step": step, "done": True}) + "\n")
    accelerator.end_training()
    # The threads of gloo may abort a process that takes its time to exit.
    os._exit(0)


if __name__ == "__main__":
    main()
