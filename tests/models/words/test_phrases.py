"""Labels in words: how they are written and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewframes.errors import ConfigError
from fewframes.models.words.phrases import TEMPLATES, WordLabel, phrases_of, word_labels


def test_phrases_names_and_several_phrasings() -> None:
    assert word_labels("a person opens a door;  closing = a person closes a door | somebody shuts a door;") == (
        WordLabel("a person opens a door", ("a person opens a door",)),
        WordLabel("closing", ("a person closes a door", "somebody shuts a door")),
    )
    assert word_labels(["a; b", "c"])[0].name == "a; b"  # each text is one label
    assert word_labels("a door|a gate")[0] == WordLabel("a door", ("a door", "a gate"))


def test_each_phrasing_is_put_into_each_sentence() -> None:
    sentences = WordLabel("x", ("a door", "a gate")).sentences()
    assert len(sentences) == 2 * len(TEMPLATES)
    assert {"a door", "a gate", "a video of a door", "a video of a gate"} <= set(sentences)


def test_a_file_has_a_label_in_each_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("a door\n\ncat=a cat|a kitten\n", encoding="utf-8")
    assert [label.name for label in word_labels(str(path))] == ["a door", "cat"]
    assert phrases_of(str(path)) == ("a door", "cat=a cat|a kitten")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as lines of text"):
        word_labels(str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "none were named"),
        (" ; ;", "none were named"),
        ("a; b; a", "label 'a' is named twice"),
        ("=a door", "a part of it is empty"),
        ("door=", "a part of it is empty"),
        ("door=a||b", "a part of it is empty"),
        (";".join(f"label {number}" for number in range(4097)), "4097 labels: needs at most 4096"),
    ],
)
def test_labels_that_are_none(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        word_labels(text)


def test_a_background_has_phrases() -> None:
    assert phrases_of("a; b; a") == ("a", "b")
    with pytest.raises(ConfigError, match="background: no phrases"):
        phrases_of(" ; ")
