"""Scores text with a reference causal language model: texts come in, the perplexity of each goes out.

    nll        = -1/n * sum over the n scored tokens of log p(token | the tokens before it)    [nats per token]
    perplexity = exp(nll)

A text's first token is predicted from nothing, and so is not scored; the tokenizer's own special tokens are all that is
added to a text. For one text this is the loss that transformers' models return for `labels=input_ids`. Perplexities
compare only under the same model and tokenizer, and a low one alone proves nothing: a repetition loop scores well.

The reference is GPT-2, the small one that ships with fgvalidate, or any other causal model that transformers loads.
Importing this module imports neither torch nor transformers; loading and scoring do.
"""

import atexit
import ctypes
import functools
import random
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fgvalidate.errors import HubError, ScorerError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")

HUB_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 5.0
NEEDED_FILES = {
    "config.json": ("config.json",),
    "weights (model.safetensors or pytorch_model.bin)": (
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ),
    "a tokenizer (tokenizer.json or vocab.json)": ("tokenizer.json", "vocab.json", "tokenizer.model"),
}
_loading = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """How well the reference model predicts a text."""

    nll: float
    """Mean negative log-likelihood in nats per scored token; NaN or infinite where the model's answer is."""
    perplexity: float
    """exp(nll): 1 is a text that the model is sure of; as many as its vocabulary has tokens is a blind guess."""
    num_tokens: int
    """Scored tokens, 1 or more."""
    is_truncated: bool
    """Whether the text was longer than the model may read; then its beginning was scored."""


@dataclass(frozen=True)
class _Tokens:
    """A text as the model reads it."""

    ids: list[int]
    is_scored: list[bool]
    """By token; the first token's is always False."""
    is_truncated: bool


class Scorer:
    """A reference model in memory; `load_scorer` makes one.

    Args:
        model: A causal language model, in eval mode and float32.
        tokenizer: Its tokenizer, which must know the offsets of its tokens.
        max_length: Tokens of a text that are read, at most, the model's own positions being the limit.
    """

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.max_length = min(max_length, getattr(model.config, "max_position_embeddings", None) or max_length)

    def score(
        self, texts: Sequence[str], *, prompts: Sequence[str] | None = None, batch_size: int = 16
    ) -> list[Perplexity | None]:
        """Scores each text; batching changes the work, not the result.

        A prompt and its text are tokenized as one string, since that is how a reader meets them. A token is scored if
        it ends behind the prompt's last character; one that straddles the boundary thus belongs to the text. Where
        prompt and text together exceed `max_length` tokens, the text's end is cut off.

        Args:
            texts: What to score; with prompts, what follows them.
            prompts: One a text, read but not scored; None: the whole of each text is scored.
            batch_size: Texts that the model reads at once.

        Returns:
            One result a text. None: there is nothing to judge, as no token of it can be predicted: it has fewer than
            two, or nothing of it is left behind the prompt.
        """
        contexts = [None] * len(texts) if prompts is None else prompts
        rows = [self._tokenize(context, text) for context, text in zip(contexts, texts, strict=True)]
        results: list[Perplexity | None] = [None] * len(rows)
        # Texts of like length go together, so that little of a batch is padding.
        order = sorted((i for i, row in enumerate(rows) if any(row.is_scored)), key=lambda i: len(rows[i].ids))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for index, result in zip(batch, self._score([rows[i] for i in batch]), strict=True):
                results[index] = result
        return results

    def draw_text(self, num_tokens: int, *, seed: int) -> str:
        """Returns tokens drawn at random from the whole vocabulary, as an untrained model would say them.

        Args:
            num_tokens: How many; special ones among them are not shown.
            seed: The same one draws the same tokens.
        """
        ids = random.Random(seed).choices(range(len(self._tokenizer)), k=num_tokens)
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _tokenize(self, prompt: str | None, text: str) -> _Tokens:
        encoding = self._tokenizer((prompt or "") + text, return_offsets_mapping=True, verbose=False)
        ids: list[int] = encoding["input_ids"][: self.max_length]
        if prompt is None:
            is_scored = [True] * len(ids)
        else:  # special tokens have the offsets (0, 0), and so are not scored
            is_scored = [end > len(prompt) for _, end in encoding["offset_mapping"][: self.max_length]]
        is_scored[:1] = [False] * len(ids[:1])
        return _Tokens(ids, is_scored, is_truncated=len(encoding["input_ids"]) > self.max_length)

    def _score(self, rows: Sequence[_Tokens]) -> list[Perplexity]:
        """Scores rows of which each has a scored token."""
        import torch  # noqa: PLC0415

        # Padded on the right, where a causal model's earlier tokens do not see it; any id will do.
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
        device = self._model.device
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
            # Row by row: a batch's log-probabilities over 50,000 tokens would double the memory.
            return [_judge(row, row_logits) for row, row_logits in zip(rows, logits, strict=True)]


def _judge(row: _Tokens, logits: "torch.Tensor") -> Perplexity:
    import torch  # noqa: PLC0415

    targets = torch.tensor(row.ids[1:], device=logits.device)
    losses = torch.nn.functional.cross_entropy(logits[: len(targets)].float(), targets, reduction="none")
    nll = losses[torch.tensor(row.is_scored[1:], device=logits.device)].double().mean()
    # torch's exp, as math's raises where the result is too large for a float.
    return Perplexity(
        nll=nll.item(),
        perplexity=nll.exp().item(),
        num_tokens=sum(row.is_scored),
        is_truncated=row.is_truncated,
    )


def find_scorer(model: str) -> str:
    """Finds out where a reference model is to be had, without loading it; at most seconds pass.

    Args:
        model: A folder that transformers loads, or the name of a model on the Hugging Face hub.

    Returns:
        The model's folder, here or in the local Hugging Face cache; its name, where it has yet to be downloaded.

    Raises:
        ScorerError: It is nowhere to be had, or is not complete.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        lacking = _list_lacking(_list_files(folder))
        if lacking:
            raise ScorerError(f"scorer.model={model}: the folder lacks {lacking}. {_advise('gpt2')}")
        return str(folder)
    return _find_by_name(model)


def _find_by_name(model: str) -> str:
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415
    from huggingface_hub.errors import HFValidationError  # noqa: PLC0415

    try:
        config = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        raise ScorerError(f"scorer.model={model}: there is no such folder. {_advise('gpt2')}") from None
    cache = f"in the local Hugging Face cache, {constants.HF_HUB_CACHE}"
    if isinstance(config, str):
        folder = Path(config).parent
        lacking = _list_lacking(_list_files(folder))
        if not lacking:
            return str(folder)
        here = f"its copy {cache}, lacks {lacking}"
    else:
        here = f"it is neither a folder nor {cache}"
    try:
        # The timeouts of the requests do not cover looking up the host's name.
        lacking = _start(functools.partial(_ask_hub, model)).result(HUB_TIMEOUT_S)
    except Exception as error:  # of several libraries, and any of them means: not from there
        kind = ScorerError if _is_refusal(error) else HubError
        raise kind(
            f"scorer.model={model}: {here}, and the hub does not give it ({_first_line(error)}). {_advise(model)}"
        ) from error
    if lacking:
        raise ScorerError(f"scorer.model={model}: {here}, and on the hub it lacks {lacking}. {_advise('gpt2')}")
    return model


def _is_refusal(error: Exception) -> bool:
    """Whether the hub has answered, and will say the same again, or was not to be asked."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled  # noqa: PLC0415

    if isinstance(error, HfHubHTTPError):
        # 429: too many requests; from 500 on: the hub's own trouble.
        return error.response.status_code < 500 and error.response.status_code != 429
    return isinstance(error, OfflineModeIsEnabled)


def _ask_hub(model: str) -> str:
    """Returns what the hub's copy lacks, or an empty string; raises whatever stands between us and it."""
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url  # noqa: PLC0415

    # Models behind a gate are listed to everybody; only a file tells whether we may have it.
    get_hf_file_metadata(hf_hub_url(model, "config.json"), timeout=HUB_TIMEOUT_S)
    files = HfApi().model_info(model, timeout=HUB_TIMEOUT_S).siblings or []
    return _list_lacking(file.rfilename for file in files)


def _list_lacking(names: Iterable[str]) -> str:
    """Returns what a model's files lack of what loading needs, as words; an empty string: nothing."""
    known = set(names)
    return " and ".join(what for what, choice in NEEDED_FILES.items() if known.isdisjoint(choice))


def _list_files(folder: Path) -> list[str]:
    # A link to a file that is gone is no file: so an interrupted download is found out.
    return [path.name for path in folder.iterdir() if path.is_file()]


def _advise(model: str) -> str:
    return (
        f"Get it with 'hf download {model}', or name a folder that holds one: scorer.model=DIR. "
        "scorer=builtin needs no download."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def load_scorer(model: str, *, device: str = "cpu", max_length: int = 512) -> Scorer:
    """Loads a reference model, once a process for each model and device; downloads it where that is needed.

    Args:
        model: As for `find_scorer`.
        device: Of torch, such as "cpu" or "cuda:0".
        max_length: Tokens of a text that are read, at most; never more than the model has positions.

    Raises:
        ScorerError: It is nowhere to be had, or cannot be loaded.
    """
    location = find_scorer(model)
    try:
        with _loading:
            loaded = _load(location, device)
    except Exception as error:  # whatever a damaged file or a foreign architecture makes of the libraries
        raise ScorerError(
            f"scorer.model={model}: it cannot be loaded from {location} on {device} ({_first_line(error)})."
            " scorer=builtin needs no download."
        ) from error
    return Scorer(*loaded, max_length=max_length)


@functools.lru_cache
def _load(location: str, device: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    # A run's own progress is on the terminal meanwhile.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(location)
    if not tokenizer.is_fast:
        raise ValueError("its tokenizer cannot tell the offsets of its tokens")
    loaded: Any = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32, output_loading_info=True)
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} for one, and would be random")
    return model.to(device).eval(), tokenizer


class BackgroundScorer:
    """Loads a reference model beside the work of others; where the process ends first, loading is given up.

    Args:
        model: As for `find_scorer`.
        device: As for `load_scorer`.
        max_length: As for `load_scorer`.
    """

    def __init__(self, model: str, *, device: str = "cpu", max_length: int = 512) -> None:
        self._scorer = _start(functools.partial(load_scorer, model, device=device, max_length=max_length))

    def result(self) -> Scorer:
        """Waits until the model is loaded.

        Raises:
            ScorerError: It is nowhere to be had, or cannot be loaded.
        """
        return self._scorer.result()


def _start(function: Callable[[], T]) -> "Future[T]":
    """Calls the function in a thread that does not outlive the process, nor keeps it waiting as an executor's does."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=work, name="scorer", daemon=True)
    thread.start()
    atexit.register(_stop, thread)
    return future


def _stop(thread: threading.Thread) -> None:
    """Ends a thread before the interpreter ends: one that it finds inside torch's C++ code aborts the process."""
    if thread.is_alive():
        # Where the exception lands in a destructor, Python would print it.
        sys.unraisablehook = lambda _: None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        thread.join(STOP_TIMEOUT_S)
