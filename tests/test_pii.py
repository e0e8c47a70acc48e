"""Personal data: every shortcut gives scrubadub's own spans, on real text with planted positives and on fuzzed text;
names by a pipeline built here, addresses against pyap's own."""

import gzip
import itertools
import json
import random
import shutil
import tarfile
from collections import Counter
from datetime import datetime

import pytest
from conftest import prose, shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from freshstart import files, scorers
from freshstart.errors import InputError
from freshstart.scorers import Finding, pii_fast, pii_names
from freshstart.scorers.pii import SCRUBADUB_DETECTORS, Pii, prepare, today
from freshstart.scorers.pii_names import Names
from freshstart.scoring.segments import sentences

FAST = ("credential", "credit_card", "email", "phone", "social_security_number", "twitter", "url")
REFERENCE = "2023-01-01"
PINS = {"scrubadub": "2.0.1", "phonenumbers": "9.0.43"}
PLANTED = [
    "username: root password: hunter2\n",
    "LOGIN root\nPW: x\n",
    " 4111111111111111 ",
    "\t378282246310005.",
    " joe.bloggs@mail.example.com ",
    "write to joe at example dot com ",
    "212-555-0123",
    " (650) 253-0000 x123 ",
    "+44 20 7946 0958",
    " 011 49 30 901820 ",
    "1-800-356-9377",
    " 123-45-6789 ",
    "https://www.example.com/a?b=c#d ",
    " www.example.com ",
    " @joe_bloggs ",
    "joe@example.com/http://example.com@joe 212-555-0123joe@example.com ",
]
FRAGMENTS = [
    *(fragment.strip() for fragment in PLANTED),
    *["(650) 253-0000", "6502530000", "1 1 1 6502530000", "310-1234", "+49 30 1234", "+0100", "+xxx0100", "+0011 44 1"],
    *["ext 5", " x123", "x", "xxx", "X", ";ext=9", "#5", " int 7", "\u0434\u043e\u0431 5", "anexo 12", "~", "12 503#"],
    *["\uff0b", "\uff08", "\uff09", "[", "]", "(", ")", "-", "\u2010", "\u2014", ".", "..", "/", "\\", " ", "  ", "\t"],
    *["\n", "\r\n", "\u00a0", "\u200b", "\u3000", ",", ":", "0", "1", "2", "01", "011", "19", "2024-01-15", "12:30"],
    *["10/11/2012", "12", "123", "12345", "123.45.6789", "923 45 6789", "5500005555555559", "\u0663", "\u0666\u0665"],
    *["\uff16\uff15\uff10", "1" * 21, "2" * 25, "$", "%", "\u20ac", "a", "\u00e9", "e", "t", "n", "the ", " at ", "at"],
    *["\nAT\t", " dot ", "@", "joe", "a.b@c.d", "@admin", "@twitter", "http://", "www.", "http://x.y", "HTTP://A.BC"],
    *["example.com", ".com", "username", "u\u017fername", "login", "u:", "password", "pa\u017fsword", "pw", "p: x y"],
    *["_", "\u0131", "\u0130", "\u212a", "+", "++", "=", "'", "\u00e9@x.com", "..@x.org", "a" * 70 + "@b.co"],
    *["pp 12(3): 211-227 (2003)", "2012-01-02 08:00:00", "(650) 223 3345 (754) 223 3321", "3324451234 8002341234"],
    *["3 3 2 4 4 5 1 2 3 4 ", "1.2.3.4.5.6.7.8.9.0.1.2.3.4.5.6.7.8.9.0.1.2.3.4", "650 253 0000/332-445-1234"],
]


def scorer(*detectors, **options):
    if "date_of_birth" in detectors:
        options.setdefault("reference_date", REFERENCE)
    return Pii(None, scorers.settings(raw(detectors=[*(detectors or FAST)], **options), "scorer.pii"))


def made(folder, **names):
    """A scorer that finds names, made in ``folder`` and loaded from it."""
    scorers.make(scorers.settings(raw(names=names, spacy="3.8.18"), "scorer.pii"), folder)
    return scorers.load(folder, "pii")[0]


def raw(**options):
    return {"kind": "pii", "segments": "sentences", **PINS, "detectors": ["email", "phone"], **options}


def own(*detectors):
    """scrubadub's own way over a whole text, with its own merging: findings in the order of their places."""
    from scrubadub.scrubbers import Scrubber

    scrubber = Scrubber(detector_list=list(detectors or FAST), post_processor_list=[], locale="en_US")

    def find(text):
        with today(datetime.fromisoformat(REFERENCE)):
            filths = sorted(scrubber.iter_filth(text, run_post_processors=False), key=lambda filth: filth.beg)
        first = (min(getattr(f, "filths", [f]), key=lambda part: (part.beg, -part.end)) for f in filths)
        return [Finding(f.beg, f.end, part.detector_name) for f, part in zip(filths, first, strict=True)]

    return find


def mail(name, count):
    with tarfile.open(shared_data("pii") / f"{name}.tar.gz") as archive:
        files = (member for member in archive if member.isfile() and member.size < 30_000)
        return [archive.extractfile(member).read().decode("latin-1") for member in itertools.islice(files, count)]


def synthetic(count):
    with gzip.open(shared_data("pii") / "presidio_synth_v2.json.gz", "rt", encoding="utf-8") as file:
        return [row["full_text"] for row in json.load(file)[:count]]


TEXTS = {
    "enron": lambda: mail("enron1_ham", 120) + mail("enron5_ham", 60) + mail("enron6_ham", 60),
    "spamassassin": lambda: mail("spamassassin_easy-ham-1", 60) + mail("spamassassin_spam-1", 40),
    "presidio": lambda: synthetic(300),
    "packages": lambda: [text[:20_000] for _, text in prose()[:40]],
}


def planted(texts, positives, seed=0):
    """The texts with positives put in at random places, words and numbers torn apart where they fall in them."""
    rng = random.Random(seed)
    for text in texts:
        for positive in rng.sample(positives, 3):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + positive + text[at:]
        yield text


@pytest.mark.parametrize("name", TEXTS)
def test_spans_and_kinds_equal_scrubadubs_own_on_real_text(name):
    texts, ours, slow = TEXTS[name](), scorer(), own()
    counts = Counter()
    for text in [*texts, *planted(texts, PLANTED)]:
        findings = ours.find(text)
        assert findings == slow(text)
        counts.update(finding.kind for finding in findings)
    assert set(counts) == set(FAST)


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text("0123456789 -x.()+@/", max_size=4), max_size=25))
def test_spans_equal_scrubadubs_own_on_fuzzed_text(pieces):
    text = "".join(pieces)
    assert OURS.find(text) == SLOW(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=12), st.text(max_size=20))
def test_each_detector_alone_equals_scrubadubs_own(pieces, noise):
    text = noise.join(pieces)
    for name, (fast, slow) in ALONE.items():
        assert list(fast(pii_fast.Reading(text))) == list(slow(pii_fast.Reading(text))), name


OURS, SLOW = scorer(), own()


def _alone():
    from scrubadub.detectors.catalogue import detector_catalogue

    detectors = [detector_catalogue.get(name)(locale="en_US") for name in FAST]
    ways = [(detector.name, pii_fast.own_way(detector), detector) for detector in detectors]
    return {name: (pii_fast.finder(detector, slow), slow) for name, slow, detector in ways}


ALONE = _alone()


def test_every_character_that_a_phone_number_may_hold_stays_in_its_run():
    """By phonenumbers' own pattern: a run that ended early would cut a number in two."""
    from re import _constants, _parser

    from phonenumbers.phonenumbermatcher import _PATTERN

    codes = set()

    def collect(node):
        for operation, argument in node:
            if operation is _constants.LITERAL:
                codes.add(argument)
            elif operation is _constants.IN:
                collect(argument)
            elif operation is _constants.RANGE:
                codes.update(range(argument[0], argument[1] + 1))
            elif operation is _constants.CATEGORY:
                assert argument is _constants.CATEGORY_DIGIT
            elif operation is _constants.BRANCH:
                for branch in argument[1]:
                    collect(branch)
            elif operation is _constants.SUBPATTERN:
                collect(argument[3])
            else:
                assert operation is _constants.MAX_REPEAT, operation
                collect(argument[2])

    collect(_parser.parse(_PATTERN.pattern, _PATTERN.flags))
    letters = {chr(code) for code in codes}
    cased = {other for letter in letters for other in (letter.upper(), letter.lower()) if len(other) == 1}
    digits = {chr(code) for code in range(0x110000) if chr(code).isdecimal()}
    assert len(letters) > 50
    for character in letters | cased | digits | {"\u0130", "\u0131", "\u017f"}:
        text = f"b+12125550123{character}b"
        assert pii_fast.Reading(text).runs == [(1, 14)], hex(ord(character))


def test_numbers_of_the_plan_are_what_the_shortcut_looks_for():
    """Seven digits from 3 on or ten from 2 on, at the ends of every area's pattern; 011 abroad; 1 before a number."""
    import re

    from phonenumbers.phonemetadata import PhoneMetadata
    from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE

    areas = [PhoneMetadata.metadata_for_region(region) for region in COUNTRY_CODE_TO_REGION_CODE[1]]
    united_states = areas[0]
    assert (united_states.international_prefix, united_states.national_prefix_for_parsing) == ("011", "1")
    assert united_states.national_prefix_transform_rule is None
    rng = random.Random(0)
    wanted = re.compile(r"[2-9]\d{9}|3\d{6}")
    patterns = [re.compile(area.general_desc.national_number_pattern) for area in areas]
    for length in range(2, 18):
        for first in range(1000):
            digits = f"{first:03d}" + "".join(rng.choices("0123456789", k=14))
            if any(pattern.fullmatch(digits[:length]) for pattern in patterns):
                assert wanted.fullmatch(digits[:length])


def test_phone_gives_up_where_phonenumbers_does(monkeypatch):
    from phonenumbers.phonenumbermatcher import Leniency, PhoneNumberMatcher

    text = "in 1.2, 3-4 and (5/6) of 7.8; ISO 2024-01-15 10; 12 34 56 78 90. " * 6 + "call 212-555-0123 or 650-253-0000"
    unlimited = own("phone")(text)
    assert unlimited
    by_tries = []
    for tries in (*range(1, 140), 200, 400, 800, 1600, 65535):
        monkeypatch.setattr(PhoneNumberMatcher.__init__, "__defaults__", (Leniency.VALID, tries, 1))
        by_tries.append(scorer("phone").find(text))
        assert by_tries[-1] == own("phone")(text)
    assert by_tries[0] == []
    assert by_tries[-1] == unlimited


def test_folded_text_keeps_its_length_and_sees_letters_as_patterns_do():
    import re

    for code in range(0x110000):
        character = chr(code)
        folded = pii_fast.Reading(character).folded
        assert len(folded) == 1
        if re.match("[a-z]", character, re.IGNORECASE):
            assert re.fullmatch(re.escape(folded), character, re.IGNORECASE)
            assert folded.isascii()


BORN = [
    "She was born on 12 March 1967 in Rome.",
    "DoB: 01/02/1980",
    "date of birth\n\n10-Nov-1950\n",
    "D.O.B. 3rd May 1971, Leeds. Also on 3rd May 1971",
]
SKYPE = ["my skype name is jxqzyplk.", "Skype: qwrtzplk_99 please", "SKYPE me, or call; id bbxjoe.brown12"]


def test_dates_of_birth_and_skype_names_equal_scrubadubs_own():
    detectors = (*FAST, "date_of_birth", "skype")
    ours, slow = scorer(*detectors), own(*detectors)
    texts = [text[:800] for text in mail("enron6_ham", 10)] + [text[:800] for _, text in prose()[:6]]
    counts = Counter()
    for text in [*texts, *planted(texts, [*BORN, "\n\n" + BORN[1] + "\n"], seed=1), *SKYPE, *planted(texts[:1], SKYPE)]:
        findings = ours.find(text)
        assert findings == slow(text)
        counts.update(finding.kind for finding in findings)
    assert counts["date_of_birth"] > 10
    assert counts["skype"] > 3


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*BORN, "in 1967", "12 March 1967", "b\u0130rth", "born", "\n", ". ", "ago"]), max_size=5)
)
def test_dates_of_birth_equal_scrubadubs_own_on_fuzzed_text(pieces):
    text = " ".join(pieces)
    assert BIRTHS.find(text) == SLOW_BIRTHS(text)


BIRTHS, SLOW_BIRTHS = scorer("date_of_birth"), own("date_of_birth")


def test_dates_of_birth_are_reckoned_from_the_reference_date_throughout():
    """Ninety-nine years old then, but over a hundred today: found, and found by what checks the date again too."""
    text = "He was born on 10-Nov-1924 in Rome."
    assert [f.kind for f in scorer("date_of_birth").find(text)] == ["date_of_birth"]
    assert scorer("date_of_birth", reference_date="2032-01-01").find(text) == []
    assert [f.kind for f in scorer("date_of_birth", reference_date="2030-01-01").find("born 30 years ago")]


def test_today_is_given_back():
    from scrubadub.detectors import date_of_birth

    before = date_of_birth.datetime, date_of_birth.search_dates
    scorer("date_of_birth").find("She was born on 12 March 1967.")
    assert (date_of_birth.datetime, date_of_birth.search_dates) == before


def test_every_detector_of_scrubadub_is_listed_or_can_not_fire():
    import scrubadub.detectors  # noqa: F401
    from scrubadub.detectors.catalogue import detector_catalogue

    left_out = {"tagged", "user_supplied", "text_blob_name"}
    british = {name for name in detector_catalogue.get_all() if name not in {*SCRUBADUB_DETECTORS, *left_out}}
    assert british == {
        *("drivers_licence", "national_insurance_number", "postalcode", "tax_reference_number"),
        "vehicle_licence_plate",
    }
    assert all(not detector_catalogue.get(name).supported_locale("en_US") for name in british)


def test_other_versions_of_the_packages_go_scrubadubs_own_way(monkeypatch):
    monkeypatch.setitem(pii_fast.CHECKED, "phonenumbers", ())
    monkeypatch.setattr(pii_fast, "finder", None)
    assert [f.kind for f in scorer().find("call 212-555-0123")] == ["phone"]


def test_spelling_equals_textblobs_own():
    import textblob

    words = ["hello", "helllo", "speling", "qwrtzplk", "bbxjoe.brown", "jx3fqz", "Thniking", "korrectud", "xylofonne"]
    words += ["joe_bloggs", "a-b.c,d", "recieevd", "zzzzzz", "comitttee"]
    assert {pii_fast._is_misspelled(word) for word in words} == {True, False}
    for word in words:
        assert pii_fast._is_misspelled(word) == (textblob.Word(word).spellcheck()[0][1] < 0.5), word


# Addresses


ADDRESSES = [
    "1600 Amphitheatre Parkway, Mountain View, CA 94043",
    "350 Fifth Avenue\nNew York, NY 10118",
    "85-1190 Ala Hema\tStreet,\r\n  Waianae, HI 96792-1234",
    "One Microsoft Way\n\nRedmond ,  Washington 98052 USA",
    "5 thousand twenty two Elm St. Suite 4, Springfield, IL",
    "25 Main Street \u2014 Winston-Salem, North Carolina",
    "225 E. John Carpenter Freeway, Suite 1500 Irving, Texas 75062",
]


def joined(text):
    from pyap.parser import AddressParser

    return AddressParser._normalize_string(text)


def test_addresses_equal_pyaps_own():
    import pyap

    find = pii_names.address_finder()
    texts = [text[:6_000] for text in mail("enron1_ham", 60) + synthetic(200)] + [
        text[:6_000] for _, text in prose()[:25]
    ]
    count = 0
    for text in [*texts, *planted(texts[:150], ADDRESSES)]:
        spans = find(text)
        expected = [address.full_address for address in pyap.parse(text, country="US")]
        assert [joined(text[a:b]) for a, b in spans] == [
            address for address in expected if "coverage" not in address.lower()
        ]
        count += len(spans)
    assert count > 100


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([*ADDRESSES, "and", "\r", "\n", " ", ",", "\u2013", "12", "thousand and", "IN"]), max_size=9
    )
)
def test_addresses_are_where_pyap_read_them(pieces):
    import pyap

    text = " ".join(pieces)
    spans = pii_names.address_finder()(text)
    expected = [address.full_address for address in pyap.parse(text, country="US")]
    assert [joined(text[a:b]).rstrip(" ,;:") for a, b in spans] == expected
    assert all(not text[a].isspace() and not text[b - 1].isspace() for a, b in spans)


def test_address_is_one_of_the_detectors():
    text = "I live at 350 Fifth Avenue\nNew York, NY 10118. Call 212-555-0123."
    findings = scorer("phone", "address", pyap="0.3.1").find(text)
    assert [(text[f.begin : f.end], f.kind) for f in findings] == [
        ("350 Fifth Avenue\nNew York, NY 10118", "address"),
        ("212-555-0123", "phone"),
    ]
    with pytest.raises(InputError, match=r"pyap 0\.3\.1 is installed, the scale file pins 0\.1"):
        scorer("address", pyap="0.1")


# Names


@pytest.fixture
def pipeline(tmp_path):
    import spacy

    nlp = spacy.blank("en")
    known = {"Joe Bloggs": "PERSON", "Acme": "ORG", "Rome": "GPE"}
    patterns = [{"label": label, "pattern": pattern} for pattern, label in known.items()]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.to_disk(tmp_path / "model")
    return tmp_path / "model"


def test_names_through_the_record(pipeline, tmp_path):
    loaded = made(tmp_path / "scorer", model=str(pipeline))
    text = "Joe Bloggs of Acme went to Rome. Write to joe@example.com, or to Joe Bloggs."
    ends = sentences(text)
    scored = loaded.score([(text, ends)])[0]
    assert [(text[f.begin : f.end], f.kind) for f in scored.findings] == [
        ("Joe Bloggs", "name"),
        ("Acme", "organization"),
        ("joe@example.com", "email"),
        ("Joe Bloggs", "name"),
    ]
    lengths = [b - a for a, b in itertools.pairwise([0, *ends])]
    assert [round(s * n) for s, n in zip(scored.scores, lengths, strict=True)] == [2, 2]
    digest = pii_names.model_digest(Names(model=str(pipeline)))
    assert files.read_json(tmp_path / "scorer/scorer.json", "scorer")["model"] == {"names_sha256": digest}
    assert prepare(scorers.settings(raw(), "scorer.pii"), tmp_path) == {}


def test_names_are_found_by_the_model_of_the_scorers_folder(pipeline, tmp_path):
    made(tmp_path / "scorer", model=str(pipeline))
    shutil.rmtree(pipeline)
    loaded, _ = scorers.load(tmp_path / "scorer", "pii")
    assert [f.kind for f in loaded.find("Joe Bloggs")] == ["name"]
    patterns = tmp_path / "scorer/names/entity_ruler/patterns.jsonl"
    patterns.write_text(patterns.read_text().replace("Joe", "Jim"))
    with pytest.raises(InputError, match="patterns.jsonl is not the file that scorer.json names"):
        scorers.load(tmp_path / "scorer", "pii")


def test_names_by_a_pinned_digest(pipeline, tmp_path):
    digest = pii_names.model_digest(Names(model=str(pipeline)))
    assert made(tmp_path / "scorer", model=str(pipeline), sha256=digest).find("Acme")
    with pytest.raises(InputError, match=f"has the digest {digest}, scorer.<task>.names.sha256 pins 0"):
        made(tmp_path / "other", model=str(pipeline), sha256="0" * 64)


@pytest.mark.parametrize("model", ["en_core_web_sm", "models/none", "json"])
def test_names_without_their_model_are_refused(model, tmp_path):
    with pytest.raises(InputError, match=r"the spaCy model .*`pip install https.*scorer\.<task>\.names to null"):
        made(tmp_path, model=model)


def test_names_of_entities_that_the_model_lacks_are_refused(pipeline, tmp_path):
    with pytest.raises(InputError, match=r"has no entity DATE of scorer\.<task>\.names\.entities"):
        made(tmp_path / "scorer", model=str(pipeline), entities=["PERSON", "DATE"])


def test_names_by_an_installed_package(pipeline, tmp_path, monkeypatch):
    package = tmp_path / "site" / "xx_names"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    pipeline.rename(package / "xx_names-1.0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert [f.kind for f in made(tmp_path / "scorer", model="xx_names").find("Joe Bloggs")] == ["name"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"detectors": ["email", "names"]}, "detectors must be some of"),
        ({"detectors": ["email", "email"]}, "names one twice"),
        ({"detectors": ["date_of_birth"]}, "needs reference_date"),
        ({"detectors": ["address"]}, "the detector address needs pyap"),
        ({"names": {"model": "en_core_web_sm"}}, "names needs spacy"),
        ({"names": {"model": "", "entities": ["ORG"]}}, "needs a model"),
        ({"names": {"modell": "en_core_web_sm"}, "spacy": "3.8.18"}, "names.model"),
    ],
)
def test_settings_are_checked(more, message):
    with pytest.raises(InputError, match=message):
        scorers.settings(raw(**more), "scorer.pii")
