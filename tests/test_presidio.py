"""The scorer presidio, which needs a package that is an extra, and says so where it is missing."""

from importlib.metadata import version
from importlib.util import find_spec

import pytest

from freshstart import scorers
from freshstart.errors import InputError
from freshstart.scorers import settings

BLOCK = {
    "kind": "presidio",
    "segments": "lines",
    "presidio_analyzer": "2.2.366",
    "phonenumbers": version("phonenumbers"),
}
TEXT = "Ask 10.20.30.40 or ada@example.org.\nDE89 3704 0044 0532 0130 00 is the account.\nNothing here.\n"
needed = pytest.mark.skipif(find_spec("presidio_analyzer") is None, reason="pip install presidio-analyzer==2.2.366")


@needed
def test_findings_belong_to_their_lines(tmp_path):
    scorers.make(settings(BLOCK, "scorer.pii"), tmp_path / "scorer")
    scorer, record = scorers.load(tmp_path / "scorer", "pii")
    lines = TEXT.splitlines(keepends=True)
    ends = [len("".join(lines[: number + 1])) for number in range(len(lines))]
    (scored,) = scorer.score([(TEXT, ends)])
    assert [TEXT[finding.begin : finding.end] for finding in scored.findings] == [
        "10.20.30.40",
        "ada@example.org",
        "DE89 3704 0044 0532 0130 00",
    ]
    assert scored.scores == (2 / len(lines[0]), 1 / len(lines[1]), 0.0)
    assert record["options"]["presidio_analyzer"] == "2.2.366"


@needed
@pytest.mark.parametrize("name", ["SpacyRecognizer", "IbanRecogniser"])
def test_recognizers_that_are_refused(name):
    from freshstart.scorers.presidio import recognizers

    with pytest.raises(InputError, match=f"unknown recogniser '{name}'"):
        recognizers([name])


def test_settings_are_checked():
    with pytest.raises(InputError, match="recognizers must name some, each once, found none"):
        settings({**BLOCK, "recognizers": []}, "scorer.pii")


@pytest.mark.skipif(find_spec("presidio_analyzer") is not None, reason="the package is installed")
def test_without_the_package_one_line_says_what_to_install():
    from freshstart.scorers.presidio import Presidio

    with pytest.raises(InputError, match="pip install presidio-analyzer==2.2.366"):
        Presidio(None, settings(BLOCK, "scorer.pii"))
