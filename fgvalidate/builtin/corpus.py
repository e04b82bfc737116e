"""Turns stories into blocks of tokens.

In: a `CorpusConfig` and the block length. Out: a `Corpus`: the tokenizer, and the training and held-out stories as
blocks of equal length. Stories stand one after another with an end-of-text token after each, and are cut wherever a
block is full, so no token is padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fgvalidate.builtin.project import CorpusConfig, ProjectError
from fgvalidate.builtin.stories import tell_stories
from fgvalidate.builtin.tokenizer import END_OF_TEXT, load_tokenizer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Corpus:
    """Tokenized stories.

    Attributes:
        tokenizer: What turned text into tokens.
        train_blocks: Token ids to train on, int64 of shape (blocks, sequence length).
        eval_blocks: Held-out token ids, of the same form.
    """

    tokenizer: "Tokenizer"
    train_blocks: "torch.Tensor"
    eval_blocks: "torch.Tensor"


def build_corpus(config: CorpusConfig, sequence_length: int) -> Corpus:
    """Tells the stories, loads their tokenizer and packs them into blocks of `sequence_length` tokens.

    Raises:
        ProjectError: There are too few stories to fill one block.
    """
    stories = tell_stories(config.train_stories + config.eval_stories, config.seed)
    train_stories, eval_stories = stories[: config.train_stories], stories[config.train_stories :]
    tokenizer = load_tokenizer(train_stories, config.vocab_size)
    return Corpus(
        tokenizer=tokenizer,
        train_blocks=_pack(tokenizer, train_stories, sequence_length, "train_stories"),
        eval_blocks=_pack(tokenizer, eval_stories, sequence_length, "eval_stories"),
    )


def _pack(tokenizer: "Tokenizer", stories: Sequence[str], sequence_length: int, key: str) -> "torch.Tensor":
    import torch  # noqa: PLC0415

    end = tokenizer.token_to_id(END_OF_TEXT)
    tokens = [token for encoding in tokenizer.encode_batch(stories) for token in (*encoding.ids, end)]
    blocks = len(tokens) // sequence_length
    if blocks == 0:
        raise ProjectError(
            f"corpus.{key}: {len(stories)} stories are {len(tokens)} tokens, one block {sequence_length}"
        )
    return torch.tensor(tokens[: blocks * sequence_length]).view(blocks, sequence_length)
