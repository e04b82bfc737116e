"""Dynamic args become flags, however a trainer wants them written."""

from typing import Any

import pytest

from fgvalidate.errors import SpecError
from fgvalidate.flags import build_flags, find_collision, place_flags
from fgvalidate.spec import Backend, Flags, Spec

HF = Flags(form="--{name} {value}", dashes=False, when_true="--{name} True", when_false="--{name} False", lists="words")
NANOGPT = Flags(
    form="--{name}={value}",
    dashes=False,
    when_true="--{name}=True",
    when_false="--{name}=False",
    names={"max_steps": "max_iters"},
)
HYDRA = Flags(
    form="{name}={value}",
    dashes=False,
    when_true="{name}=true",
    when_false="{name}=false",
    lists="brackets",
    nesting=".",
)
TITAN = Flags(dashes=False, nesting=".", names={"max_steps": "training.steps", "seed": "debug.seed"})


def write(dynamic_args: dict[str, Any], flags: Flags) -> list[str]:
    return [word for flag in build_flags(dynamic_args, flags) for word in flag.words]


@pytest.mark.parametrize(
    ("dynamic_args", "words"),
    [
        ({"max_steps": 200, "save_strategy": "no"}, ["--max-steps", "200", "--save-strategy", "no"]),
        ({"compile": True, "dry_run": False, "seed": None}, ["--compile"]),
        ({"learning_rate": 1e-05, "ratio": 0.5}, ["--learning-rate", "1e-05", "--ratio", "0.5"]),
        ({"name": "two words"}, ["--name", "two words"]),
        ({}, []),
    ],
)
def test_flags_are_words_with_dashes_unless_told_otherwise(dynamic_args: dict[str, Any], words: list[str]) -> None:
    assert write(dynamic_args, Flags()) == words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param(Flags(), ["--max-steps", "5", "--compile"], id="dashes"),
        pytest.param(Flags(when_false="--no-{name}"), ["--max-steps", "5", "--compile", "--no-use-cache"], id="no"),
        pytest.param(Flags(dashes=False), ["--max_steps", "5", "--compile"], id="underscores"),
        pytest.param(
            Flags(form="-{name} {value}", when_true="-{name}"), ["-max-steps", "5", "-compile"], id="one_dash"
        ),
        pytest.param(HF, ["--max_steps", "5", "--compile", "True", "--use_cache", "False"], id="booleans_in_two_words"),
        pytest.param(NANOGPT, ["--max_iters=5", "--compile=True", "--use_cache=False"], id="one_word_and_a_name"),
        pytest.param(HYDRA, ["max_steps=5", "compile=true", "use_cache=false"], id="hydra"),
        pytest.param(TITAN, ["--training.steps", "5", "--compile"], id="a_dotted_name"),
        pytest.param(Flags(names={"compile": None}), ["--max-steps", "5"], id="no_such_flag"),
        pytest.param(Flags(when_true=None), ["--max-steps", "5"], id="true_left_out"),
    ],
)
def test_flags_are_written_as_the_trainer_takes_them(flags: Flags, words: list[str]) -> None:
    assert write({"max_steps": 5, "compile": True, "use_cache": False, "seed": None}, flags) == words


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(lists="repeated"), ["--target", "a b", "--target", "3"]),
        (Flags(lists="words"), ["--target", "a b", "3"]),
        (Flags(lists="commas"), ["--target", "a b,3"]),
        (Flags(lists="commas", form="--{name}={value}"), ["--target=a b,3"]),
        (HYDRA, ["target=[a b,3]"]),
    ],
    ids=["repeated", "words", "commas", "commas_in_one_word", "brackets"],
)
def test_lists_are_written_as_the_trainer_takes_them(flags: Flags, words: list[str]) -> None:
    assert write({"target": ["a b", 3]}, flags) == words


def test_nested_names_are_joined() -> None:
    args = {"training": {"steps": 5, "inner": {"on": True}}, "seed": 1, "checkpoint.interval": 2}

    words = ["--training.steps", "5", "--training.inner.on", "--debug.seed", "1", "--checkpoint.interval", "2"]
    assert write(args, TITAN) == words


def test_braces_in_a_value_mean_nothing() -> None:
    assert write({"prompt": "{name} {value} {output_dir}"}, HF) == ["--prompt", "{name} {value} {output_dir}"]


def test_two_names_of_one_flag_are_refused() -> None:
    with pytest.raises(
        SpecError, match=r"^dynamic_args\.max_steps: its flag --max_iters is max_iters's too; remove one"
    ):
        build_flags({"max_iters": 3, "max_steps": 5}, NANOGPT)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (["run"], ["run", "--a", "1", "--b", "--c", "x"]),
        (["{flags}", "run"], ["--a", "1", "--b", "--c", "x", "run"]),
        (["{flags:b}", "run"], ["--b", "run", "--a", "1", "--c", "x"]),
        (["{flags:c,a}", "run", "{flags}", "end"], ["--a", "1", "--c", "x", "run", "--b", "end"]),
        (["{flags:z}", "run"], ["run", "--a", "1", "--b", "--c", "x"]),
    ],
)
def test_flags_stand_where_the_command_line_says_or_last(template: list[str], words: list[str]) -> None:
    assert place_flags(template, build_flags({"a": 1, "b": True, "c": "x"}, Flags())) == words


@pytest.mark.parametrize(
    ("template", "flags", "collides"),
    [
        (["--lr", "1"], Flags(), True),
        (["--lr=1"], Flags(), True),
        (["lr", "--lr2"], Flags(), False),
        (["--lr=1"], NANOGPT, True),
        (["lr=1"], HYDRA, True),
        (["++lr=1"], HYDRA, True),
        (["lr"], HYDRA, False),
        (["--x=lr=3"], HYDRA, False),
    ],
)
def test_flag_that_the_command_line_sets_itself_is_found(template: list[str], flags: Flags, collides: bool) -> None:
    assert find_collision(template, build_flags({"lr": 1}, flags)) == ("lr" if collides else None)


def test_dash_and_underscore_are_one_to_a_collision() -> None:
    assert find_collision(["--max-grad"], build_flags({"max_grad": 1}, HF)) == "max_grad"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"form": "--{name}"},
            "backend.flags.form: must be like '--{name} {value}' or '{name}={value}', not '--{name}'",
        ),
        ({"form": "--{value} {name}"}, "backend.flags.form: must be like"),
        ({"form": "-- {name} {value}"}, "backend.flags.form: must be like"),
        (
            {"when_true": "--on"},
            "backend.flags.when_true: must be like '--{name}' or '{name}=true', or null, not '--on'",
        ),
        ({"when_false": "{name} {value}"}, "backend.flags.when_false: must be like"),
        ({"lists": "commata"}, "backend.flags.lists: must be one of repeated, words, commas, brackets, or null"),
        (
            {"lists": "words", "form": "{name}={value}"},
            "backend.flags.lists: words need a blank in backend.flags.form, which is '{name}={value}'",
        ),
    ],
)
def test_way_of_writing_that_makes_no_flag_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        Flags(**fields)

    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("args", "flags", "message"),
    [
        (
            {"x": [1]},
            Flags(),
            "dynamic_args.x: must be one text, number or boolean, since backend.flags.lists does not say how lists are "
            "written, not [1]",
        ),
        ({"x": [[1]]}, HYDRA, "dynamic_args.x: must be one text, number or boolean, or hold nothing but those"),
        ({"x": [None]}, HYDRA, "dynamic_args.x: must be one text, number or boolean, or hold nothing but those"),
        (
            {"x": {"y": 1}},
            HF,
            "dynamic_args.x: must be one text, number or boolean, since backend.flags.nesting does not",
        ),
        ({"x": {"y": [{}]}}, HYDRA, "dynamic_args.x: must be one text, number or boolean, or hold nothing but those"),
        ({"seed": 3}, Flags(names={"seed": None}), "dynamic_args.seed: backend=mine has no flag for it (backend.flags"),
        ({"max_steps": 3}, Flags(names={"max_steps": None}), "dynamic_args.max_steps: backend=mine has no flag for it"),
        ({"lr-min": 3}, Flags(), "dynamic_args.lr-min: is written lr_min, not 3"),
        ({"lr-min": 3}, HF, "dynamic_args.lr-min: is written lr_min (backend.flags.names.lr_min=lr-min), not 3"),
    ],
)
def test_what_a_trainer_cannot_be_told_is_refused(args: dict[str, Any], flags: Flags, message: str) -> None:
    with pytest.raises(SpecError) as error:
        Spec(
            test_id="x",
            project_dir="p",
            config="c",
            dynamic_args=args,
            backend=Backend(name="mine", flags=flags),
        )

    assert str(error.value).startswith(message)


def test_steps_that_a_trainer_cannot_be_told_are_refused() -> None:
    backend = Backend(name="mine", flags=Flags(names={"max_steps": None}))

    with pytest.raises(SpecError, match=r"^max_steps: backend=mine has no flag for it"):
        Spec(test_id="x", project_dir="p", config="c", max_steps=3, backend=backend)


def test_save_strategy_that_a_trainer_does_not_know_is_not_told() -> None:
    backend = Backend(name="mine", flags=Flags(names={"save_strategy": None}))

    spec = Spec(test_id="x", project_dir="p", config="c", dynamic_args={"save_strategy": "no"}, backend=backend)

    assert write(spec.dynamic_args, backend.flags) == []
