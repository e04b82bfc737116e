"""Trains the built-in scorer: the small reference model that judges generated text where GPT-2 is not to be had.

In: stories told from a seed that no training corpus uses. Out: a folder that transformers loads, with tokenizer; by
default the one that ships with fgvalidate. It takes some minutes on two CPU cores and downloads nothing:

    python -m fgvalidate.builtin.train_scorer --output-dir DIR

Some of what it reads is spoiled on purpose. A model that has only met stories is sure of them even where it reads
something else, and gives nonsense perplexities far above the vocabulary's size, the perplexity of a blind guess. This
one has learned to guess where text makes no sense, so that its scale ends about there.

The same machine, versions, flags and number of threads give the same weights. They are stored as float16 and meant to
be loaded as float32.
"""

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgvalidate.builtin.corpus import build_corpus
from fgvalidate.builtin.project import CorpusConfig
from fgvalidate.builtin.tokenizer import END_OF_TEXT, PADDING

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel

CORPUS = CorpusConfig(train_stories=16000, eval_stories=64, seed=20011, vocab_size=2048)
SEQUENCE_LENGTH = 512  # tokens; as many as the references score, so that every position has been trained
BATCH_SIZE = 4  # blocks
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 30
SPOILED_SHARE = 0.25  # of the blocks


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, prints the course of the loss, and writes the model's folder."""
    parser = argparse.ArgumentParser(prog="python -m fgvalidate.builtin.train_scorer", description="Train the scorer.")
    parser.add_argument(
        "--output-dir", type=Path, default=Path(__file__).parent / "scorer", help="default: %(default)s"
    )
    parser.add_argument("--steps", type=int, default=800, help="optimizer steps of 2048 tokens; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order of blocks; default: %(default)s")
    options = parser.parse_args(arguments)
    # Threads that spin while they wait take three times as long as soon as the cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    train_scorer(options.output_dir, steps=options.steps, seed=options.seed)


def train_scorer(output_dir: Path, *, steps: int, seed: int) -> None:
    """Trains the scorer and writes it to `output_dir`.

    Args:
        output_dir: Is created where it is missing; what it holds of an earlier scorer is overwritten.
        steps: Optimizer steps, 1 or more.
        seed: Of the initial weights and the order of the blocks; the stories have a seed of their own.
    """
    import torch  # noqa: PLC0415
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    corpus = build_corpus(CORPUS, SEQUENCE_LENGTH)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=corpus.tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        model_max_length=SEQUENCE_LENGTH,
    )
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=SEQUENCE_LENGTH,
            n_embd=128,
            n_layer=4,
            n_head=4,
            initializer_range=0.08,  # about 1/sqrt(n_embd); the usual 0.02 takes more steps
            activation_function="gelu_pytorch_tanh",  # GPT-2's own, in one kernel
            # Hardly a block is seen twice, and dropout would take as long as all the rest.
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    _train(model, corpus.train_blocks, steps=steps)
    loss = _mean_loss(model, corpus.eval_blocks)
    print(f"held-out loss {loss:.4f}, perplexity {math.exp(loss):.3f}")
    model.half().save_pretrained(output_dir)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(output_dir)


def _train(model: "GPT2LMHeadModel", blocks: "torch.Tensor", *, steps: int) -> None:
    import torch  # noqa: PLC0415

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_factor(step, steps))
    model.train()
    order, started = torch.empty(0, dtype=torch.int64), time.monotonic()
    for step in range(1, steps + 1):
        if len(order) < BATCH_SIZE:  # an epoch is over
            order = torch.randperm(len(blocks))
        batch, order = blocks[order[:BATCH_SIZE]], order[BATCH_SIZE:]
        loss = _loss(model, _spoil(batch, model.config.vocab_size))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if step % 20 == 0 or step == steps:
            print(f"step {step:>5}  loss {loss.item():.4f}  {time.monotonic() - started:6.1f} s", flush=True)


def _spoil(batch: "torch.Tensor", vocab_size: int) -> "torch.Tensor":
    """Returns the batch with any share of the tokens of some blocks replaced, by random or misplaced ones."""
    import torch  # noqa: PLC0415

    blocks, length = batch.shape
    is_spoiled = torch.rand(blocks, 1) < SPOILED_SHARE
    is_replaced = torch.rand(blocks, length) < torch.rand(blocks, 1)
    misplaced = batch[:, torch.randperm(length)]
    noise = torch.where(torch.rand(blocks, 1) < 0.5, misplaced, torch.randint(vocab_size, batch.shape))
    return torch.where(is_spoiled & is_replaced, noise, batch)


def _learning_rate_factor(step: int, steps: int) -> float:
    """Rises over the warmup, then falls as a cosine to 0."""
    return min((step + 1) / WARMUP_STEPS, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def _mean_loss(model: "GPT2LMHeadModel", blocks: "torch.Tensor") -> float:
    """Returns nats per token over all blocks."""
    import torch  # noqa: PLC0415

    model.train(mode=False)
    with torch.inference_mode():
        losses = [_loss(model, block[None]).item() for block in blocks]
    return math.fsum(losses) / len(losses)


def _loss(model: "GPT2LMHeadModel", batch: "torch.Tensor") -> "torch.Tensor":
    """Returns nats per token; the model's own loss is the same but warns that its config names none."""
    from torch.nn.functional import cross_entropy  # noqa: PLC0415

    logits = model(input_ids=batch, use_cache=False).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


if __name__ == "__main__":
    main()
