"""The tables of the study's toxicity task, from public sets: python prepare.py FOLDER raw/toxicity

Expected in the folder:

- text/20news-bydate-train.tar.gz: 20 Newsgroups, a file a post (tabs for line breaks). Posts to talk, soc, rec, alt and
  misc, without their headers, are one part of the corpus.
- toxicity/toxic_spans_comments.csv.gz: data/comments.csv of github.com/ipavlopoulos/toxic_spans. Comments of news sites
  (Civil Comments), most of them rated toxic, are the other.
- toxicity/jigsaw_wikipedia_binary.csv.gz: comments of Wikipedia's talk pages (text, label; 1 is toxic), which the
  scorer learns from.
- toxicity/davidson_tweets.csv.gz: data/labeled_data.csv of github.com/t-davidson/hate-speech-and-offensive-language.
  The judge learns from their labels.
"""

import csv
import gzip
import re
import sys
import tarfile
from pathlib import Path

import polars as pl

GROUPS = re.compile(r"/(talk|soc|rec|alt|misc)\.")
data, output = Path(sys.argv[1]), Path(sys.argv[2])
csv.field_size_limit(1 << 30)


def rows(name: str) -> list[list[str]]:
    with gzip.open(data / "toxicity" / name, "rt", encoding="utf-8", errors="replace", newline="") as file:
        return list(csv.reader(file))


def posts() -> list[str]:
    with tarfile.open(data / "text/20news-bydate-train.tar.gz") as tar:
        members = [member for member in tar if member.isfile() and GROUPS.search(member.name)]
        ordered = sorted(members, key=lambda member: member.name)
        texts = [tar.extractfile(member).read().decode("latin-1") for member in ordered]
    return [text.replace("\r", "").replace("\t", "\n").partition("\n\n")[2].strip() for text in texts]


def write(name: str, columns: dict[str, list]) -> None:
    table = pl.DataFrame(columns).filter(pl.col("text").str.len_chars() >= 20)
    table.write_parquet(output / name)
    print(f"{output / name}: {len(table):,} rows, {table['text'].str.len_chars().sum():,} characters")


output.mkdir(parents=True, exist_ok=True)
usenet, comments = posts(), [row[1].strip() for row in rows("toxic_spans_comments.csv.gz")[1:]]
sources = ["usenet"] * len(usenet) + ["comments"] * len(comments)
write("corpus.parquet", {"text": usenet + comments, "from": sources})
talk = rows("jigsaw_wikipedia_binary.csv.gz")
write("talk.parquet", {"text": [row[0] for row in talk], "label": [int(row[1]) for row in talk]})
header, *tweets = rows("davidson_tweets.csv.gz")
text, label = header.index("tweet"), header.index("class")
write("tweets.parquet", {"text": [row[text] for row in tweets], "label": [int(row[label]) for row in tweets]})
