import json
import math
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import fgvalidate.perplexity
from fgvalidate.builtin.stories import tell_stories
from fgvalidate.errors import HubError, ScorerError
from fgvalidate.perplexity import BackgroundScorer, Perplexity, Scorer, find_scorer, load_scorer

ROOT = Path(__file__).parents[1]
BUILTIN = ROOT / "fgvalidate" / "builtin" / "scorer"
HELD_OUT_SEED = 987
NUM_POSITIONS = 64
LENGTHS = (2, 3, 60, 7, 25, 1, 40)
STORY = " ".join(tell_stories(1, HELD_OUT_SEED)[0].split()[:40])
FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-2 without a padding token."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(BUILTIN / "tokenizer.json"))  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=NUM_POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
        bos_token_id=None,
        eos_token_id=None,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def score_one(scorer: Scorer, text: str, prompt: str | None = None) -> Perplexity:
    (result,) = scorer.score([text], prompts=None if prompt is None else [prompt])
    assert result is not None
    return result


def list_losses(folder: Path, text: str) -> list[float]:
    """Returns how many nats each of a text's tokens costs, but for the first, worked out one by one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(text).input_ids
    with torch.inference_mode():
        log_probabilities = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [-log_probabilities[i, ids[i + 1]].item() for i in range(len(ids) - 1)]


def cut_to_tokens(text: str, count: int) -> str:
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN)
    return str(tokenizer.decode(tokenizer(text).input_ids[:count]))


@pytest.mark.parametrize(
    "text", [STORY, "Hi there", "Zo\u00eb paid 3 \u20ac; \u65e5\u672c!"], ids=["story", "short", "bytes"]
)
def test_one_text_scores_the_loss_of_transformers(tiny: Path, text: str) -> None:
    ids = AutoTokenizer.from_pretrained(tiny)(text, return_tensors="pt").input_ids
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=ids).loss.item()

    result = score_one(load_scorer(str(tiny)), text)

    assert result.nll == pytest.approx(loss, abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert result.num_tokens == ids.shape[1] - 1
    assert not result.is_truncated


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_batch_scores_each_text_as_if_it_were_alone(tiny: Path, batch_size: int) -> None:
    scorer = load_scorer(str(tiny))
    texts = [cut_to_tokens(STORY + STORY, length) for length in LENGTHS]

    results = scorer.score(texts, batch_size=batch_size)

    assert [result and result.num_tokens for result in results] == [1, 2, 59, 6, 24, None, 39]
    for text, result in zip(texts, results, strict=True):
        (alone,) = scorer.score([text])
        assert (result and result.perplexity) == (alone and pytest.approx(alone.perplexity, rel=1e-4))


@pytest.mark.parametrize(("max_length", "read"), [(10, 10), (10_000, NUM_POSITIONS)], ids=["asked for", "positions"])
def test_a_long_text_is_scored_up_to_the_limit_and_says_so(tiny: Path, max_length: int, read: int) -> None:
    losses = list_losses(tiny, cut_to_tokens(STORY + STORY, read))

    result = score_one(load_scorer(str(tiny), max_length=max_length), STORY + STORY)

    assert result.is_truncated
    assert result.num_tokens == read - 1
    assert result.nll == pytest.approx(statistics.fmean(losses), abs=1e-5)


def test_a_text_of_just_the_limit_is_not_truncated(tiny: Path) -> None:
    result = score_one(load_scorer(str(tiny), max_length=10), cut_to_tokens(STORY, 10))

    assert (result.num_tokens, result.is_truncated) == (9, False)


@pytest.mark.parametrize(
    ("prompt", "text", "num_tokens"),
    [
        ("Once upon a time", ", there was a cat", 5),
        ("Once upon a ti", "me, there", 3),
        ("Once upon a time ", "there was", 2),
        ("", "Once upon a time", 3),
    ],
    ids=["boundary between tokens", "boundary inside a token", "prompt ends with a space", "no prompt"],
)
def test_behind_a_prompt_only_the_continuation_is_scored(tiny: Path, prompt: str, text: str, num_tokens: int) -> None:
    losses = list_losses(tiny, prompt + text)

    result = score_one(load_scorer(str(tiny)), text, prompt)

    assert result.num_tokens == num_tokens
    assert result.nll == pytest.approx(statistics.fmean(losses[-num_tokens:]), abs=1e-5)


def test_continuations_are_scored_the_same_in_a_batch(tiny: Path) -> None:
    scorer = load_scorer(str(tiny))
    prompts, texts = [STORY, "Once", "Once upon a time"], [" The end.", " upon a time" + STORY, " there"]

    results = scorer.score(texts, prompts=prompts)

    for prompt, text, result in zip(prompts, texts, results, strict=True):
        assert result is not None
        assert result.perplexity == pytest.approx(score_one(scorer, text, prompt).perplexity, rel=1e-4)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [(None, ""), (None, "a"), ("", "a"), ("Once upon a time", ""), (STORY + STORY, " The end.")],
    ids=["empty", "one token", "one token, no prompt", "nothing follows", "the prompt fills all positions"],
)
def test_where_no_token_can_be_predicted_there_is_no_score(tiny: Path, prompt: str | None, text: str) -> None:
    scorer = load_scorer(str(tiny))

    results = scorer.score([text], prompts=None if prompt is None else [prompt])

    assert results == [None]


def test_no_texts_have_no_scores(tiny: Path) -> None:
    assert load_scorer(str(tiny)).score([]) == []


@pytest.mark.parametrize(
    ("factor", "nll", "perplexity"),
    [(math.nan, "nan", "nan"), (1e6, "finite", "inf")],
    ids=["nan", "exp overflows"],
)
def test_a_result_that_is_not_finite_is_no_exception(tiny: Path, factor: float, nll: str, perplexity: str) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    with torch.no_grad():
        model.lm_head.weight.mul_(factor)

    result = score_one(Scorer(model, AutoTokenizer.from_pretrained(tiny), max_length=64), STORY)

    assert str(result.perplexity) == perplexity
    assert ("finite" if math.isfinite(result.nll) else str(result.nll)) == nll


def test_a_scorer_is_loaded_once(tiny: Path) -> None:
    first, second = load_scorer(str(tiny)), load_scorer(str(tiny), max_length=5)

    assert first._model is second._model
    assert first._model.dtype == torch.float32
    assert not first._model.training


def test_text_that_is_drawn_is_the_same_each_time_and_another_for_another_seed() -> None:
    scorer = load_scorer(str(BUILTIN))

    first, again, other = (scorer.draw_text(50, seed=seed) for seed in (0, 0, 1))

    assert first == again != other
    assert len(first.split()) > 10
    (result,) = scorer.score([first])
    assert result is not None
    assert result.perplexity > 500


def test_the_builtin_scorer_tells_stories_from_shuffled_words_from_random_tokens() -> None:
    rng = random.Random(HELD_OUT_SEED)
    scorer, tokenizer = load_scorer(str(BUILTIN)), AutoTokenizer.from_pretrained(BUILTIN)
    stories = tell_stories(16, HELD_OUT_SEED)
    shuffled = [" ".join(rng.sample(words, len(words))) for words in map(str.split, stories)]
    noise = [str(tokenizer.decode(rng.choices(range(2, len(tokenizer)), k=140))) for _ in stories]

    def measure(texts: list[str]) -> list[float]:
        return [result.perplexity for result in scorer.score(texts) if result is not None]

    of_stories, of_shuffled, of_noise = measure(stories), measure(shuffled), measure(noise)

    assert len(of_stories) == len(of_shuffled) == len(of_noise) == 16
    assert max(of_stories) * 3 <= min(of_shuffled)
    assert statistics.median(of_shuffled) * 3 <= statistics.median(of_noise)


def test_the_builtin_scorer_is_small_and_complete() -> None:
    assert find_scorer(str(BUILTIN)) == str(BUILTIN)
    assert sum(path.stat().st_size for path in BUILTIN.iterdir()) <= 4_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache on a machine without a network."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


def fill_cache(cache: Path, model: str, names: tuple[str, ...]) -> Path:
    repository = cache / f"models--{model}"
    snapshot = repository / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    for name in names:
        (snapshot / name).write_text("{}")
    return snapshot


def test_an_absent_model_is_refused_in_one_line_that_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(ScorerError) as refusal:
        find_scorer("gpt2")

    message = str(refusal.value)
    assert message.startswith(f"scorer.model=gpt2: it is neither a folder nor in the local Hugging Face cache, {cache}")
    assert "\n" not in message
    assert all(way in message for way in ("'hf download gpt2'", "scorer.model=DIR", "scorer=builtin needs no download"))


@pytest.mark.parametrize("model", ["/no/such/folder", "./folder", "a/b/c"])
def test_a_folder_that_is_not_there_is_refused(cache: Path, model: str) -> None:
    del cache

    with pytest.raises(ScorerError, match=f"^scorer.model={re.escape(model)}: there is no such folder"):
        find_scorer(model)


@pytest.mark.parametrize(
    ("missing", "words"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "a tokenizer")],
)
def test_an_incomplete_folder_is_refused(tmp_path: Path, missing: str, words: str) -> None:
    for name in FILES:
        (tmp_path / name).write_text("{}")
    (tmp_path / missing).unlink()

    with pytest.raises(ScorerError, match=f"the folder lacks {words}"):
        find_scorer(str(tmp_path))


def test_a_cached_model_is_found_without_a_network(cache: Path) -> None:
    snapshot = fill_cache(cache, "gpt2", ("config.json", "pytorch_model.bin", "vocab.json"))

    assert find_scorer("gpt2") == str(snapshot)


def test_a_model_cached_in_part_is_refused_without_a_network(cache: Path) -> None:
    snapshot = fill_cache(cache, "gpt2", ("config.json", "tokenizer.json"))
    (snapshot / "model.safetensors").symlink_to(snapshot / "gone")

    with pytest.raises(ScorerError, match=r"its copy in the local Hugging Face cache, .*/hub, lacks weights"):
        find_scorer("gpt2")


@pytest.fixture
def serve_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A hub that has one model, `acme/judge`: `serve_hub(names of its files, delay_s=0.0)`."""
    del cache
    servers = []

    def serve(*names: str, delay_s: float = 0.0) -> None:
        class Hub(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                time.sleep(delay_s)
                self.send_response(200 if self.path == "/acme/judge/resolve/main/config.json" else 404)
                for header in ("X-Repo-Commit", "ETag"):
                    self.send_header(header, "0123abc")
                self.send_header("Content-Length", "2")
                self.end_headers()

            def do_GET(self) -> None:
                body = json.dumps({"id": "acme/judge", "siblings": [{"rfilename": name} for name in names]}).encode()
                self.send_response(200 if self.path == "/api/models/acme/judge" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_model_of_the_hub_is_found_there(serve_hub: Callable[..., None]) -> None:
    serve_hub(*FILES)

    assert find_scorer("acme/judge") == "acme/judge"


def test_a_model_without_weights_on_the_hub_is_refused(serve_hub: Callable[..., None]) -> None:
    serve_hub("config.json", "tokenizer.json")

    with pytest.raises(ScorerError, match="on the hub it lacks weights"):
        find_scorer("acme/judge")


def test_a_model_that_the_hub_does_not_have_is_refused(serve_hub: Callable[..., None]) -> None:
    serve_hub(*FILES)

    with pytest.raises(ScorerError, match=r"the hub does not give it \(.*404") as refusal:
        find_scorer("acme/jugde")

    assert not isinstance(refusal.value, HubError)


def test_a_hub_that_does_not_answer_is_not_waited_for(
    serve_hub: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fgvalidate.perplexity, "HUB_TIMEOUT_S", 0.2)
    serve_hub(*FILES, delay_s=2.0)
    started = time.monotonic()

    with pytest.raises(HubError, match=r"the hub does not give it \(\w*Timeout"):
        find_scorer("acme/judge")

    assert time.monotonic() - started < 1.5


def test_the_background_gives_the_scorer(tiny: Path) -> None:
    scorer = BackgroundScorer(str(tiny), max_length=20).result()

    assert score_one(scorer, STORY).num_tokens == 19


def test_a_failure_in_the_background_shows_when_the_result_is_asked_for(cache: Path) -> None:
    del cache
    background = BackgroundScorer("gpt2")

    for _ in range(2):
        with pytest.raises(ScorerError, match=r"^scorer.model=gpt2: "):
            background.result()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_refused(tiny: Path, tmp_path: Path, name: str) -> None:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((tiny / name).read_bytes()[:100])

    with pytest.raises(ScorerError, match=r"cannot be loaded from .* on cpu \(\w+: .*\)\. ") as refusal:
        load_scorer(str(tmp_path))

    assert "\n" not in str(refusal.value)


def test_a_model_with_missing_weights_is_refused(tiny: Path, tmp_path: Path) -> None:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": 3}))

    with pytest.raises(ScorerError, match=r"weights are missing, transformer\.h\.2\."):
        load_scorer(str(tmp_path))


def test_a_device_that_is_not_there_is_refused(tiny: Path) -> None:
    with pytest.raises(ScorerError, match="on cuda:99 "):
        load_scorer(str(tiny), device="cuda:99")


@pytest.mark.parametrize("delay_s", [0.0, 0.4, 1.0])
def test_a_process_that_ends_while_loading_says_nothing(tiny: Path, delay_s: float) -> None:
    code = (
        "import sys, time; from fgvalidate.perplexity import BackgroundScorer; "
        "BackgroundScorer(sys.argv[1]); time.sleep(float(sys.argv[2]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny), str(delay_s)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_costs_neither_torch_nor_transformers() -> None:
    code = "import sys, fgvalidate.perplexity; print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
