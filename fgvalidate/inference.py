"""The inference stage: a trained model's folder comes in; how it was served, what it said and how well go out.

Whatever the server does wrong is a value here; a scorer that cannot be loaded is the one error.
"""

import statistics
from dataclasses import dataclass
from pathlib import Path

from fgvalidate.command import Command
from fgvalidate.completion import Completion, CompletionFailure, distinct_2
from fgvalidate.model_dir import ModelDirProblem, find_model_dir
from fgvalidate.perplexity import BackgroundScorer, Perplexity
from fgvalidate.process import ProcessResult
from fgvalidate.server import Server, ServerStart
from fgvalidate.spec import Inference, Spec


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One completion and its scores."""

    completion: Completion
    whole: Perplexity | None
    """Of prompt and completion together; None: too short to be scored."""
    continuation: Perplexity | None
    """Of the completion, given the prompt; None: too short to be scored."""
    distinct_2: float | None
    """Share of distinct word bigrams in the completion; None: fewer than two words."""


@dataclass(frozen=True, kw_only=True)
class InferenceResult:
    """What the stage observed."""

    problem: str
    """Why there is no sample, or not every one that was asked for; empty when there is."""
    scorer: str
    """The language model that scored."""
    model_dir: Path | None = None
    """What was served; None: no model was found."""
    start: ServerStart | None = None
    """How the server came up; None: it was not started."""
    samples: tuple[Sample, ...] = ()
    process: ProcessResult | None = None
    """How the server ended."""


def run_inference(
    spec: Spec,
    command: Command,
    scorer: BackgroundScorer,
    *,
    output_dir: Path,
    log_path: Path,
    held_fds: tuple[int, ...] = (),
) -> InferenceResult:
    """Serves the model, asks for completions and scores them; nothing of the server is left afterwards.

    Args:
        spec: With an inference section.
        command: The server's, with `{model_dir}`, `{host}` and `{port}` to fill in.
        scorer: The reference model, which may still be loading.
        output_dir: The trainer's.
        log_path: Takes what the server prints.
        held_fds: Descriptors that the server's supervisor holds until nothing of the server is left.

    Raises:
        ScorerError: The reference model cannot be loaded.
    """
    assert spec.inference is not None
    asked, name = spec.inference, spec.scorer.name
    pattern = spec.backend.model_pattern
    model_dir = find_model_dir(output_dir, needs_weights=spec.server.needs_weights, pattern=pattern)
    if isinstance(model_dir, ModelDirProblem):
        return InferenceResult(problem=model_dir.reason, scorer=name)
    server = Server(
        command.argv,
        model_dir=model_dir,
        cwd=command.cwd,
        env=command.env,
        log_path=log_path,
        start_timeout_s=asked.server_timeout,
        health_path=spec.server.health_path,
        model=spec.server.model,
        held_fds=held_fds,
    )
    with server:
        start = server.start(lambda: _complete(server, asked, 0))
        answers = [start.first] if start.first is not None else []
        if start.is_healthy:
            answers += [_complete(server, asked, number) for number in range(1, asked.num_samples)]
    completions = [answer for answer in answers if isinstance(answer, Completion)]
    failure = next((answer.reason for answer in answers if isinstance(answer, CompletionFailure)), "")
    return InferenceResult(
        problem=start.reason or failure,
        scorer=name,
        model_dir=model_dir,
        start=start,
        samples=tuple(score(asked.prompt, completions, scorer)),
        process=server.result,
    )


def _complete(server: Server, asked: Inference, number: int) -> Completion | CompletionFailure:
    return server.complete(
        prompt=asked.prompt,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        seed=None if asked.seed is None else asked.seed + number,
        timeout_s=asked.request_timeout,
    )


def score(prompt: str, completions: list[Completion], scorer: BackgroundScorer) -> list[Sample]:
    """Scores completions, together with their prompt and alone.

    Raises:
        ScorerError: The reference model cannot be loaded.
    """
    model = scorer.result()
    texts = [completion.text for completion in completions]
    wholes = model.score([prompt + text for text in texts])
    continuations = model.score(texts, prompts=[prompt] * len(texts))
    return [
        Sample(completion=completion, whole=whole, continuation=continuation, distinct_2=distinct_2(completion.text))
        for completion, whole, continuation in zip(completions, wholes, continuations, strict=True)
    ]


def find_median(values: list[float | None]) -> float | None:
    """Returns the median; NaN when any value is, None when any is missing or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return next((value for value in known if value != value), statistics.median(known))  # noqa: PLR0124
