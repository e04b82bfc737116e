"""Trains a small GPT-2 from scratch on a text, with the Trainer of transformers."""

import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

NAMES, PLACES, THINGS = ("Tom", "Anna", "Ben", "Mia"), ("garden", "house", "park"), ("ball", "cake", "boat", "kite")


@dataclass
class ModelArguments:
    """What is trained."""

    n_layer: int = field(default=2)
    n_embd: int = field(default=48)
    vocab_size: int = field(default=320)


@dataclass
class DataTrainingArguments:
    """What it is trained on."""

    num_stories: int = field(default=400)
    block_size: int = field(default=64)


@dataclass
class TroubleArguments:
    """What a broken machine or a bug would do."""

    trouble: str = field(default="", metadata={"help": "crash, kill, hang or quit"})
    trouble_step: int = field(default=10)


class Blocks(Dataset):
    """A text in pieces of equal length, each its own target."""

    def __init__(self, tokens: list[int], size: int) -> None:
        self.blocks = [torch.tensor(tokens[start : start + size]) for start in range(0, len(tokens) - size, size)]

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.blocks[index], "labels": self.blocks[index]}


class Trouble(TrainerCallback):
    """Makes it at a step."""

    def __init__(self, arguments: TroubleArguments) -> None:
        self.arguments = arguments

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step != self.arguments.trouble_step:
            return
        if self.arguments.trouble == "crash":
            raise RuntimeError("the data ran out")
        if self.arguments.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.arguments.trouble == "hang":
            time.sleep(3600)
        if self.arguments.trouble == "quit":
            sys.exit(0)


def tell_stories(count: int) -> list[str]:
    """Makes up stories that are all alike."""
    draw = random.Random(0).choice
    form = "Once upon a time {0} went to the {1}. {0} saw a big {2} there. The {2} was very nice and {0} was happy."
    return [form.format(draw(NAMES), draw(PLACES), draw(THINGS)) for _ in range(count)]


def train_tokenizer(stories: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learns byte pairs from the text itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, special_tokens=["<|end|>"], show_progress=False
    )
    tokenizer.train_from_iterator(stories, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|end|>", eos_token="<|end|>")


def main() -> None:
    parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TroubleArguments, TrainingArguments))
    model_args, data_args, trouble_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    stories = tell_stories(data_args.num_stories)
    tokenizer = train_tokenizer(stories, model_args.vocab_size)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=256,
        n_layer=model_args.n_layer,
        n_embd=model_args.n_embd,
        n_head=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    tokens = [token for story in stories for token in [*tokenizer(story)["input_ids"], tokenizer.eos_token_id]]
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=training_args,
        train_dataset=Blocks(tokens, data_args.block_size),
        processing_class=tokenizer,
        data_collator=default_data_collator,
        callbacks=[Trouble(trouble_args)],
    )
    result = trainer.train()
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()


if __name__ == "__main__":
    main()
