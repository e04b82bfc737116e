"""The stories: repeatable, varied, and whole."""

import hashlib
import re

from fgvalidate.builtin.stories import BOYS, GIRLS, tell_stories


def test_the_same_seed_tells_the_same_stories_on_every_python() -> None:
    digest = hashlib.sha256("\n".join(tell_stories(100, seed=1)).encode()).hexdigest()

    assert digest[:16] == "23df333ed6fd624e"


def test_another_seed_tells_other_stories() -> None:
    assert not set(tell_stories(100, seed=1)) & set(tell_stories(100, seed=2))


def test_telling_more_stories_keeps_the_first_ones() -> None:
    assert tell_stories(20, seed=3)[:10] == tell_stories(10, seed=3)


def test_thousands_of_stories_are_distinct() -> None:
    stories = tell_stories(5000, seed=4)

    assert len(set(stories)) == 5000


def test_stories_are_short_plain_sentences() -> None:
    for story in tell_stories(500, seed=5):
        assert story.isascii()
        assert 60 <= len(story.split()) <= 150
        assert re.fullmatch(r'[A-Z].*[.!?]"?', story)
        assert "{" not in story


def test_once_upon_a_time_is_a_usual_start() -> None:
    starts = sum(story.startswith("Once upon a time") for story in tell_stories(600, seed=6))

    assert 200 < starts < 400


def test_articles_fit_the_word_that_follows() -> None:
    text = " ".join(tell_stories(2000, seed=7))

    assert re.findall(r"\ba [aeio]\w+|\ban [^aeio ]\w+", text) == []


def test_a_story_names_no_one_but_its_hero_and_friend() -> None:
    for story in tell_stories(500, seed=8):
        assert 1 <= len(set(re.findall(r"\w+", story)) & {*GIRLS, *BOYS}) <= 2
