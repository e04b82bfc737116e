"""Trains a model with `transformers.Trainer`.

In: a checked `Config` and an output directory. Out, in that directory: `config.json` and the tokenizer, written before
training; `runs/log_<time>/trainer_logs.json`; and `checkpoints/checkpoint-N/`, as the save strategy says. On stdout: a
block of facts, the step table, and a block of results. Under torchrun every process trains and rank 0 alone writes.

Importing this module imports torch and transformers, which takes seconds.
"""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging as transformers_logging

from fgvalidate.builtin.corpus import Corpus, build_corpus
from fgvalidate.builtin.project import Config, ModelConfig, ProjectError, TrainerConfig
from fgvalidate.builtin.tokenizer import END_OF_TEXT, PADDING
from fgvalidate.builtin.training_log import TABLE_HEADER, StepWindow, TrainingLog, new_log_dir, print_row


def train(config: Config, output_dir: Path) -> None:
    """Trains the config's model from scratch and leaves log and checkpoints in `output_dir`.

    Raises:
        ProjectError: The config asks for what there is not: GPUs, an architecture, data for one step.
        OSError: The output directory cannot be written.
    """
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available() and world_size > torch.cuda.device_count():
        raise ProjectError(f"{world_size} processes need as many GPUs, this machine has {torch.cuda.device_count()}")
    settings = config.trainer
    corpus = build_corpus(config.corpus, settings.sequence_length)
    batch_size = settings.per_device_train_batch_size * world_size
    steps_per_epoch = len(corpus.train_blocks) // batch_size
    if steps_per_epoch == 0:
        raise ProjectError(f"the corpus has {len(corpus.train_blocks)} blocks, one step takes {batch_size}")
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=corpus.tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=PADDING
    )
    set_seed(settings.seed)
    model = _build_model(config.model, tokenizer)
    trainer = _LabelTrainer(
        shuffle_labels=settings.shuffle_labels,
        model=model,
        args=_training_arguments(settings, output_dir, distributed=world_size > 1),
        # Whole batches only: every step sees as many tokens.
        train_dataset=_Blocks(corpus.train_blocks[: steps_per_epoch * batch_size]),
        eval_dataset=_Blocks(corpus.eval_blocks),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    if rank == 0:
        model.config.save_pretrained(output_dir)
        tokenizer.save_pretrained(output_dir)
        log_dir = new_log_dir(output_dir)
        print(_facts(config, model, corpus, trainer.args, log_dir), flush=True)
    with TrainingLog(log_dir / "trainer_logs.json") if rank == 0 else nullcontext() as log:
        if log is not None:
            trainer.add_callback(_Recorder(log, settings, batch_size))
            print_row(TABLE_HEADER)
        runtime = trainer.train().metrics["train_runtime"]
        if log is not None:
            record = _final_record(trainer.state, runtime, batch_size, settings.sequence_length)
            log.write(record)
            print(_block("Training complete:", record), flush=True)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Blocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks of tokens as a data set of which each item is its own label; the model shifts them."""

    def __init__(self, blocks: torch.Tensor) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self._blocks[index], "labels": self._blocks[index]}


class _LabelTrainer(Trainer):
    """A Trainer that can permute the labels of its training batches (evaluation stays honest)."""

    def __init__(self, *, shuffle_labels: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._shuffle_labels = shuffle_labels

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if self._shuffle_labels and model.training:
            labels = inputs["labels"]
            order = torch.randperm(labels.numel()).to(labels.device)
            inputs = inputs | {"labels": labels.flatten()[order].view_as(labels)}
        return super().compute_loss(model, inputs, *args, **kwargs)


class _Recorder(TrainerCallback):
    """Writes log and step table; the Trainer reports every step, this makes a record of `logging_steps` of them."""

    def __init__(self, log: TrainingLog, settings: TrainerConfig, batch_size: int) -> None:
        self._log = log
        self._logging_steps = settings.logging_steps
        self._window = StepWindow(batch_size * settings.sequence_length)

    def on_log(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:  # an evaluation or the end of training
            return
        self._window.add(logs["loss"], logs["grad_norm"])
        if state.global_step % self._logging_steps == 0:
            record = self._window.close(
                global_step=state.global_step,
                epoch=state.epoch or 0.0,
                total_flos=state.total_flos,
                learning_rate=logs["learning_rate"],
            )
            if torch.cuda.is_available():
                record["peak_mem_allocated"] = torch.cuda.max_memory_allocated()
            self._log.write(record)

    def on_evaluate(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        **kwargs: Any,
    ) -> None:
        epoch, loss = state.epoch or 0.0, kwargs["metrics"]["eval_loss"]
        self._log.write({"global_step": state.global_step, "epoch": round(epoch, 6), "eval_loss": loss})
        print_row(f"{state.global_step:>10}  {round(epoch, 1)!s:<6} eval-loss: {loss:.5f}")


def _build_model(config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    special_tokens = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        known = AutoConfig.for_model(config.model_type).to_dict()
    except ValueError as error:
        raise ProjectError(f"model.model_type: transformers knows no architecture {config.model_type!r}") from error
    if unknown := config.options.keys() - known.keys():
        raise ProjectError(f"model.options: unknown key {', '.join(sorted(unknown))} for {config.model_type}")
    model_config = AutoConfig.for_model(
        config.model_type, **config.options, **special_tokens, vocab_size=len(tokenizer)
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(model_config)  # type: ignore[no-untyped-call]
    model.config.architectures = [type(model).__name__]
    # A server samples, and so honours temperature and seed, only where the model says so.
    model.generation_config.do_sample = True
    return model


def _training_arguments(settings: TrainerConfig, output_dir: Path, *, distributed: bool) -> TrainingArguments:
    saves = settings.save_strategy != "no"
    return TrainingArguments(
        # The Trainer puts its checkpoint-N folders here, and creates the folder even if it saves none.
        output_dir=str(output_dir / "checkpoints" if saves else output_dir),
        per_device_train_batch_size=settings.per_device_train_batch_size,
        per_device_eval_batch_size=settings.per_device_train_batch_size,
        max_steps=settings.max_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        # Every step reaches the recorder, which alone sees each gradient norm; it writes every logging_steps.
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        prediction_loss_only=True,
        save_strategy=settings.save_strategy,
        save_steps=settings.save_steps,
        save_total_limit=settings.save_total_limit,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        # All processes have equally many tokens, so the mean of their means is the mean; asked to average over tokens,
        # transformers 5.23 reports the loss once for each process.
        average_tokens_across_devices=False,
        ddp_backend="gloo" if distributed and not torch.cuda.is_available() else None,
        report_to=[],
        disable_tqdm=True,
    )


def _facts(config: Config, model: PreTrainedModel, corpus: Corpus, args: TrainingArguments, log_dir: Path) -> str:
    settings = config.trainer
    return _block(
        config.description,
        {
            "model": type(model).__name__,
            "parameters": f"{model.num_parameters():,}",
            "vocabulary": f"{model.config.vocab_size:,} tokens",
            "device": f"{args.world_size} x {args.device.type}",
            "train blocks": f"{len(corpus.train_blocks):,} of {settings.sequence_length} tokens",
            "eval blocks": f"{len(corpus.eval_blocks):,}",
            "batch size": f"{settings.per_device_train_batch_size} blocks per process",
            "steps": f"{settings.max_steps:,}",
            "learning rate": settings.learning_rate,
            "log": log_dir / "trainer_logs.json",
        },
    )


def _final_record(state: TrainerState, runtime: float, batch_size: int, sequence_length: int) -> dict[str, Any]:
    samples = state.global_step * batch_size
    return {
        "global_step": state.global_step,
        "epoch": round(state.epoch or 0.0, 6),
        "train_runtime": runtime,
        "train_samples": samples,
        "step": state.global_step - 1,
        "train_samples_per_second": round(samples / runtime, 3),
        "train_steps_per_second": round(state.global_step / runtime, 3),
        "effective_batch_size": batch_size,
        "total_tokens": samples * sequence_length,
        "tokens_per_second": round(samples * sequence_length / runtime, 2),
        "total_flops": state.total_flos,
        "flops_per_second": round(state.total_flos / runtime, 2),
    }


def _block(title: str, facts: dict[str, Any]) -> str:
    return "\n".join([title, *(f"  {name + ':':<26}{value}" for name, value in facts.items())])
