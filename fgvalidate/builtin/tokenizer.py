"""The byte-level BPE tokenizer of the stories.

In: the training stories and a vocabulary size. Out: a `tokenizers.Tokenizer`, trained on them or read from the cache,
`$XDG_CACHE_HOME/fgvalidate/` (`~/.cache/fgvalidate/` by default). A cache file's name holds a hash of all that the
tokenizer depends on, so a stale one is never read; a damaged one is rebuilt; without a writable cache training goes on.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"
SPECIAL_TOKENS = [END_OF_TEXT, PADDING]


def load_tokenizer(stories: Sequence[str], vocab_size: int) -> "Tokenizer":
    """Returns the tokenizer trained on `stories`, from the cache where it has been trained before.

    Args:
        stories: The training corpus.
        vocab_size: Tokens, at most; small corpora yield fewer.
    """
    path = _cache_dir() / f"tokenizer-{_fingerprint(stories, vocab_size)}.json"
    tokenizer = _read(path)
    if tokenizer is None:
        tokenizer = _train(stories, vocab_size)
        _write(path, tokenizer.to_str())
    return tokenizer


def _cache_dir() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "fgvalidate"


def _fingerprint(stories: Sequence[str], vocab_size: int) -> str:
    from tokenizers import __version__  # noqa: PLC0415

    basis = [__version__, SPECIAL_TOKENS, vocab_size, list(stories)]
    return hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]


def _train(stories: Sequence[str], vocab_size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    return tokenizer


def _read(path: Path) -> "Tokenizer | None":
    """Returns None where the file is missing or damaged."""
    from tokenizers import Tokenizer  # noqa: PLC0415

    try:
        tokenizer: Tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception:  # tokenizers raises a bare Exception on a damaged file
        return None
    return tokenizer if tokenizer.token_to_id(PADDING) is not None else None


def _write(path: Path, text: str) -> None:
    """Puts the file in place whole, so that a run beside this one never reads half of it."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
