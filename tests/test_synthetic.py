"""The synthetic corpus: deterministic, true to its own lexicon, varied, and apart from its labelled set."""

from __future__ import annotations

import re
from itertools import islice

import pytest
from nltk.tokenize.punkt import PunktSentenceTokenizer

from freshstart.corpora import Document, synthetic

WORD = re.compile(r"[a-z]+")


def settings(documents: int = 5000, **changes) -> synthetic.Settings:
    bounds = {"train_characters": 1, "heldout_characters": 1, "part_characters": 1}
    return synthetic.Settings(**{"kind": "synthetic", "documents": documents, **bounds, **changes})


@pytest.fixture(scope="module")
def corpus() -> list[Document]:
    return list(synthetic.documents(settings(), seed=0))


@pytest.fixture(scope="module")
def sentences(corpus) -> list[list[tuple[int, int]]]:
    splitter = PunktSentenceTokenizer()
    return [list(splitter.span_tokenize(document.text)) for document in corpus]


def test_same_seed_gives_the_same_comments_and_another_seed_others(corpus):
    assert list(synthetic.documents(settings(200), seed=0)) == corpus[:200]
    other = synthetic.documents(settings(200), seed=1)
    assert not {document.text for document in other} & {document.text for document in corpus}


def test_truth_and_lexicon_agree_in_every_sentence(corpus, sentences):
    for document, spans in zip(corpus, sentences, strict=True):
        abusive = [begin <= first and last <= end for begin, end in spans for first, last in document.meta["abusive"]]
        assert sum(abusive) == len(document.meta["abusive"]), document
        for begin, end in spans:
            truth = any(begin <= first and last <= end for first, last in document.meta["abusive"])
            assert truth == bool(synthetic.find_abuse(document.text[begin:end])), document.text[begin:end]


def test_abusive_spans_are_whole_sentences(corpus, sentences):
    for document, spans in zip(corpus, sentences, strict=True):
        for begin, end in document.meta["abusive"]:
            assert end in {last for _, last in spans}, document
            assert document.text[end - 1] in ".!?"
            assert document.text[end : end + 1].strip() == ""
            assert document.text[begin].isupper()
            assert begin == 0 or document.text[begin - 1].isspace()


def test_comments_have_two_to_nine_sentences_of_which_a_fifth_is_abusive(corpus, sentences):
    counts = [len(spans) for spans in sentences]
    assert min(counts) >= 2
    assert max(counts) <= 9
    assert 0.15 <= sum(len(document.meta["abusive"]) for document in corpus) / sum(counts) <= 0.27
    assert 0.32 <= sum(bool(document.meta["abusive"]) for document in corpus) / len(corpus) <= 0.38


def test_abusive_share_is_followed_to_its_ends():
    for share in (0.0, 1.0):
        documents = synthetic.documents(settings(300, abusive_share=share), seed=0)
        assert {bool(document.meta["abusive"]) for document in documents} == {bool(share)}


def test_comments_are_distinct_and_long_sentences_nearly(corpus, sentences):
    assert len({document.text for document in corpus}) == len(corpus)
    texts = [
        document.text[begin:end] for document, spans in zip(corpus, sentences, strict=True) for begin, end in spans
    ]
    long = [text for text in texts if len(text.split()) >= 8]
    assert len(set(long)) >= 0.97 * len(long)


def test_text_reads_as_english_where_a_rule_can_tell(corpus):
    wrong = re.compile(r"[{}|;]|\b(\w+) \1\b|  |\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiou]")
    for document in corpus:
        assert not wrong.search(document.text), document.text
        assert document.source == document.meta["family"]


def test_every_slot_has_options_to_change_between():
    kinds = [synthetic.FAMILIES, *synthetic.LABELLED_FAMILIES.values()]
    for rules in [rules for kind in kinds for rules in kind.values()]:
        assert {slot for slot, options in rules.items() if len(set(options)) < 2} == set()


def test_the_labelled_set_shares_no_lexicon_no_family_and_no_template_with_the_corpus(corpus):
    labelled, corpus_lexicon = synthetic.labelled_lexicon(), synthetic.lexicon()
    assert not set(labelled) & set(corpus_lexicon)
    assert all(20 <= len(words) <= 50 and len(set(words)) == len(words) for words in (labelled, corpus_lexicon))
    assert len({document.source for document in corpus}) == len(synthetic.FAMILIES) >= 10
    families, other = synthetic.FAMILIES, synthetic.LABELLED_FAMILIES
    assert not set(families) & {family for kind in other.values() for family in kind}
    roles = {role.strip(">?") for frames in synthetic.FRAMES.values() for frame in frames for role in frame}
    templates = {template for rules in families.values() for role in roles for template in rules[role]}
    assert len(templates) > 80
    for rules in [rules for kind in other.values() for rules in kind.values()]:
        assert not templates & {template for role in ("plain", "address", "attack") for template in rules[role]}
    assert not any(synthetic.find_abuse(text) for text, _ in synthetic.labelled(3000, 0.0, 0))
    words = {word for document in corpus for word in WORD.findall(document.text.lower())}
    assert not words & {form for word in labelled for form in (word, word + "s")}


def test_labels_are_true_up_to_the_noise_asked_for():
    clean, noisy = list(synthetic.labelled(4000, 0.0, 3)), list(synthetic.labelled(4000, 0.1, 3))
    assert clean == list(synthetic.labelled(4000, 0.0, 3))
    assert clean != list(synthetic.labelled(4000, 0.0, 4))
    assert [text for text, _ in clean] == [text for text, _ in noisy]
    insult = re.compile(rf"\b(?:{'|'.join(synthetic.labelled_lexicon())})s?\b", re.IGNORECASE)
    assert all(bool(insult.search(text)) == bool(label) for text, label in clean)
    assert 0.3 <= sum(label for _, label in clean) / len(clean) <= 0.5
    flipped = sum(label != noisy_label for (_, label), (_, noisy_label) in zip(clean, noisy, strict=True))
    assert 0.08 <= flipped / len(clean) <= 0.12


def test_find_abuse_gives_whole_words_in_any_case_with_plurals():
    word = synthetic.lexicon()[0]
    text = f"Un{word} met {word.upper()} and two {word}s, a {word}ish day."
    assert [text[begin:end] for begin, end in synthetic.find_abuse(text)] == [word.upper(), f"{word}s"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("documents", 0), ("abusive_share", -0.1), ("abusive_share", 1.1), ("abusive_share", float("nan"))],
)
def test_settings_refuse_what_can_not_be(name, value):
    with pytest.raises(ValueError, match=name):
        settings(**{name: value})


def test_labelled_refuses_noise_that_is_no_probability():
    with pytest.raises(ValueError, match="noise"):
        next(synthetic.labelled(1, 1.5, 0))


def test_documents_come_one_by_one():
    many = synthetic.documents(settings(10**12), seed=0)
    assert len(list(islice(many, 3))) == 3
