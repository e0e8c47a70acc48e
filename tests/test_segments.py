"""Segments join back to the text, keep to the rule of boundaries, and fall where a reader expects them."""

import itertools
import tarfile

import pytest
from conftest import prose, python_files, read, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from freshstart.scoring.segments import SEGMENTERS, is_space, lines, sentences

ODD = [
    *(
        "\x1c",
        "\x1f",
        "\x85",
        "\u2028",
        "\u2029",
        "\u200b",
        "\xa0",
        "\u3000",
        "\r\n",
        "\r",
        "\n",
        "\f",
        "\v",
        "\t",
        " ",
    ),
    *("中文。", "これは", "?(", '."(', "a", "B.", "x = 1", "Dr. No", "!", "…", "<|good|>", "<|bad|>", "é", "🙂", "  "),
]
FUZZ = st.lists(st.sampled_from(ODD), max_size=30).map("".join)


def segments(text, ends):
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def check(text, ends):
    assert "".join(segments(text, ends)) == text
    assert ends == sorted(set(ends))
    for end in ends[:-1]:
        assert not is_space(text[end - 1])
        assert is_space(text[end])
        assert not all(is_space(character) for character in text[end:])
    for segment in segments(text, ends):
        assert len(ends) == 1 or not all(is_space(character) for character in segment)


@pytest.mark.parametrize("cut", SEGMENTERS.values())
@given(text=FUZZ)
@settings(max_examples=1500, deadline=None)
def test_fuzzed_text(cut, text):
    check(text, cut(text))


@pytest.mark.parametrize("cut", SEGMENTERS.values())
def test_real_documents(cut):
    texts = [read(path) for path in python_files(500)] + [text for _, text in prose()]
    assert len(texts) >= 550
    for text in texts:
        check(text, cut(text))


@pytest.mark.parametrize("cut", SEGMENTERS.values())
def test_shared_documents(cut):
    with tarfile.open(shared_data("text") / "20news-bydate-train.tar.gz") as archive:
        members = list(itertools.islice((member for member in archive if member.isfile()), 1000))
        for member in members:
            text = archive.extractfile(member).read().decode("latin-1")
            check(text, cut(text))
    assert len(members) == 1000


def test_lines_end_where_their_last_character_stands():
    text = "import os\n\n\ndef f():  \r\n    return 1\rx = 2\n\n"
    assert segments(text, lines(text)) == ["import os", "\n\n\ndef f():", "  \r\n    return 1", "\rx = 2\n\n"]


def test_lines_end_at_line_breaks_alone():
    assert lines("a\fb\vc\x85d\u2028e\x1cf") == [len("a\fb\vc\x85d\u2028e\x1cf")]


def test_sentences_and_paragraphs():
    text = "One is here. Two is here!\n\nA heading\n\nThree? Yes (four)."
    assert segments(text, sentences(text)) == [
        "One is here.",
        " Two is here!",
        "\n\nA heading",
        "\n\nThree?",
        " Yes (four).",
    ]


def test_a_line_break_is_no_paragraph_whatever_its_kind():
    for end in ("\n", "\r\n", "\r"):
        text = f"A sentence over{end}two lines.{end}{end}Another one,{end}too"
        assert segments(text, sentences(text)) == [
            f"A sentence over{end}two lines.",
            f"{end}{end}Another one,{end}too",
        ]


def test_text_without_spaces_between_sentences_is_one_segment():
    text = "我们很好。你呢？今天天气不错。"
    assert sentences(text) == [len(text)]


def test_empty_and_blank_text():
    for cut in SEGMENTERS.values():
        assert cut("") == []
        assert cut(" \n ") == [3]


@pytest.mark.parametrize("text", [" " * 300_000, "a " * 150_000, "a\n" + " " * 300_000 + "b", "a." * 150_000])
def test_odd_shapes_take_linear_time(text):
    for cut in SEGMENTERS.values():
        ends = cut(text)
        assert ends[-1] == len(text)
