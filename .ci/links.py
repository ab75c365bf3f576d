#!/usr/bin/env python3
"""Finds dead links and anchors, without a network.

    .ci/links.py BOOK        the built book: every link between its pages, every anchor, every picture
    .ci/links.py --pages     the Markdown pages beside the book, from the root of the repository: the files that they name
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors.update(value for key, value in attributes.items() if key in ("id", "name") and value)
        self.links += [value for key, value in attributes.items() if key in ("href", "src") and value]


def is_elsewhere(link):
    return re.match(r"[a-z][a-z0-9+.-]*:|//", link) is not None


def book(root):
    """What is wrong with the links of a built book."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in root.rglob("*.html")}
    faults = []
    for path, page in pages.items():
        # the page of a missing address has links from wherever it is shown; the print page repeats the others
        if path.name in ("404.html", "print.html", "toc.html"):
            continue
        for link in page.links:
            if is_elsewhere(link) or link.startswith("javascript"):
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / urllib.parse.unquote(name)).resolve() if name else path
            if target.is_dir():
                target = target / "index.html"
            if not target.exists():
                faults.append(f"{path.relative_to(root.resolve())}: `{link}` leads nowhere")
            elif anchor and target in pages and urllib.parse.unquote(anchor) not in pages[target].anchors:
                faults.append(f"{path.relative_to(root.resolve())}: `{link}` names no heading there")
    return len(pages), faults


def markdown(root):
    """What is wrong with the links of the Markdown pages outside of the book."""
    pages = [path for path in sorted(root.glob("*.md")) + sorted(root.glob("assets/*.md"))]
    faults = []
    for path in pages:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            name = link.partition("#")[0]
            if name and not is_elsewhere(link) and not (path.parent / name).exists():
                faults.append(f"{path.relative_to(root)}: `{link}` leads nowhere")
    return len(pages), faults


def main():
    n, faults = markdown(pathlib.Path(".")) if sys.argv[1] == "--pages" else book(pathlib.Path(sys.argv[1]))
    print(f"{n} pages, {len(faults)} dead links", *faults, sep="\n")
    sys.exit(1 if faults or n == 0 else 0)


main()
