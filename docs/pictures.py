#!/usr/bin/env python3
"""Draws the pictures of "How it works": schemes, and what the files in docs/results say.

    python3 docs/pictures.py            writes them
    python3 docs/pictures.py --check    fails where one differs

Beside each SVG lies its base64 text, from which the API documentation shows it. Only the standard library is needed.
"""

import base64
import json
import math
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
BLUE, ORANGE, GREEN, PINK, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#999999", "#222222"


class Picture:
    def __init__(self, width, height):
        self.width, self.height, self.parts = width, height, []

    def add(self, part):
        self.parts.append(part)

    def text(self, x, y, words, size=14, anchor="start", colour=INK, weight="normal"):
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">{words}</text>')

    def rect(self, x, y, w, h, fill="none", stroke=INK, opacity=1.0):
        self.add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{fill}" stroke="{stroke}" fill-opacity="{opacity}"/>')

    def line(self, x1, y1, x2, y2, stroke=INK, width=1.0, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" stroke-width="{width}"{dash}/>')

    def path(self, points, stroke=INK, width=2.0, dash="", fill="none"):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        steps = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
        self.add(f'<path d="{steps}" fill="{fill}" stroke="{stroke}" stroke-width="{width}"{dash}/>')

    def dot(self, x, y, colour, filled=True, r=4.5):
        self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" fill="{colour if filled else "white"}" stroke="{colour}" stroke-width="1.5" fill-opacity="0.85"/>')

    def arrow(self, x1, y1, x2, y2):
        self.line(x1, y1, x2, y2, width=1.5)
        angle = math.atan2(y2 - y1, x2 - x1)
        ends = [(x2 - 8 * math.cos(angle + turn), y2 - 8 * math.sin(angle + turn)) for turn in (0.4, -0.4)]
        self.path([ends[0], (x2, y2), ends[1]], width=1.5)

    def svg(self):
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}" font-family="sans-serif">'
        return "\n".join([head, f'<rect width="{self.width}" height="{self.height}" fill="white"/>', *self.parts, "</svg>\n"])


def read(name):
    return json.loads((DOCS / "results" / f"{name}.json").read_text())


def cells():
    """The cells of the leave-one-out study by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((DOCS / "results/leave_one_out").glob("*.json"))}


def row(cell, name):
    return next((row for row in cell["rows"] if row["name"] == name and row.get("scores")), None)


def lora():
    p = Picture(620, 240)
    p.rect(40, 40, 150, 150, GREY, opacity=0.25)
    p.text(115, 112, "W₀", 20, "middle")
    p.text(115, 132, "frozen", 13, "middle")
    p.text(115, 210, "[d_out, d_in]", 13, "middle")
    p.text(215, 122, "+   s ·", 20)
    p.rect(310, 40, 30, 150, ORANGE, opacity=0.5)
    p.text(325, 120, "B", 18, "middle")
    p.text(325, 210, "[d_out, r]", 13, "middle")
    p.text(356, 122, "·", 20)
    p.rect(380, 100, 150, 30, BLUE, opacity=0.4)
    p.text(455, 120, "A", 18, "middle")
    p.text(455, 150, "[r, d_in]", 13, "middle")
    p.text(430, 60, "trained", 13, "middle")
    p.arrow(405, 65, 347, 85)
    p.arrow(445, 67, 455, 95)
    return p


def laplace():
    """A posterior of one weight: six labels and a normal prior, and the Gaussian at its mode."""
    xs, ys, precision = [0.4, 0.8, 1.2, 1.6, 2.0, 0.6], [1, 1, 1, 1, 1, 0], 0.3

    def log_joint(w):
        return sum(-math.log1p(math.exp(-w * x if y else w * x)) for x, y in zip(xs, ys)) - 0.5 * precision * w * w

    grid = [i / 200 * 9 - 2 for i in range(201)]
    mode = max(grid, key=log_joint)
    for _ in range(20):  # Newton's steps from the best point of the grid
        ps = [1 / (1 + math.exp(-mode * x)) for x in xs]
        slope = sum((y - q) * x for x, y, q in zip(xs, ys, ps)) - precision * mode
        curvature = sum(q * (1 - q) * x * x for x, q in zip(xs, ps)) + precision
        mode += slope / curvature
    exact = [math.exp(log_joint(w) - log_joint(mode)) for w in grid]
    total = sum(exact) * 9 / 200
    exact = [value / total for value in exact]
    gauss = [math.sqrt(curvature / (2 * math.pi)) * math.exp(-0.5 * curvature * (w - mode) ** 2) for w in grid]
    prior = [math.sqrt(precision / (2 * math.pi)) * math.exp(-0.5 * precision * w * w) for w in grid]
    p = Picture(620, 300)
    at = lambda w, v: (50 + (w + 2) / 9 * 540, 240 - v / max(gauss) * 190)
    for values, colour, dash in ((prior, GREY, "2 4"), (exact, INK, ""), (gauss, BLUE, "8 5")):
        p.path([at(w, v) for w, v in zip(grid, values)], colour, 2.5, dash)
    p.line(50, 240, 590, 240)
    x = at(mode, 0)[0]
    p.line(x, 240, x, 50, GREY, 1, "3 3")
    p.text(x, 258, "θ*", 15, "middle")
    p.text(590, 258, "a weight", 13, "end")
    for i, (words, colour, dash) in enumerate((("prior", GREY, "2 4"), ("posterior", INK, ""), ("Laplace: same curvature at θ*", BLUE, "8 5"))):
        left = 60 + (0, 110, 250)[i]
        p.line(left, 283, left + 34, 283, colour, 2.5, dash)
        p.text(left + 42, 288, words, 13)
    return p


def structures():
    """Which entries of the whole matrix each structure keeps: three modules of four weights."""
    p = Picture(760, 250)
    n, size = 12, 13
    kept = (
        ("full, function space", lambda i, j: 1.0),
        ("site block", lambda i, j: float(i // 4 == j // 4)),
        ("Kronecker, EKFAC", lambda i, j: 0.55 if i // 4 == j // 4 else 0.0),
        ("diagonal", lambda i, j: float(i == j)),
    )
    for k, (name, keeps) in enumerate(kept):
        left = 20 + k * 185
        for i in range(n):
            for j in range(n):
                v = keeps(i, j)
                p.rect(left + j * size, 20 + i * size, size, size, BLUE if v else "white", "#dddddd", v or 1.0)
        p.rect(left, 20, n * size, n * size)
        p.text(left + n * size / 2, 200, name, 14, "middle")
    p.text(20 + 2 * 185 + n * size / 2, 219, "blocks as products G ⊗ A", 12, "middle", GREY)
    p.text(20 + n * size / 2, 219, "everything", 12, "middle", GREY)
    p.text(20 + 185 + n * size / 2, 219, "one matrix at a time", 12, "middle", GREY)
    p.text(20 + 3 * 185 + n * size / 2, 219, "each weight alone", 12, "middle", GREY)
    p.text(380, 243, "rows and columns: the weights of three adapted matrices", 12, "middle", GREY)
    return p


def harm():
    rows = (
        ("Kronecker, usual evidence", "Kronecker, usual evidence"),
        ("Kronecker, evidence at own mode", "Kronecker, evidence at the mode"),
        ("Kronecker, matched prior", "Kronecker, matched prior"),
        ("Kronecker, matched prior, leave-one-out temperature before averaging", "… and its temperature (default)"),
        ("core space, usual evidence", "core space, usual evidence"),
        ("ML + leave-one-out temperature", "leave-one-out temperature alone"),
    )
    p = Picture(760, 330)
    scale = lambda v: 590 + math.copysign(math.sqrt(abs(v)), v) * 315
    for i, (name, label) in enumerate(rows):
        y = 40 + i * 38
        p.text(245, y + 5, label, 13, "end")
        p.line(255, y, 750, y, "#eeeeee")
        for j, (cell, values) in enumerate(sorted(cells().items())):
            found = row(values, name)
            if found is None:
                continue
            d = found["scores"]["against_ml"]["difference"]
            colour = ORANGE if cell.startswith("smollm2") else BLUE
            p.dot(scale(d["value"]), y + (j % 5 - 2) * 3, colour, d["low"] > 0 or d["high"] < 0)
    p.line(scale(0), 20, scale(0), 255, INK, 1, "4 4")
    for tick in (-1.0, -0.5, -0.2, -0.05, 0.0, 0.05, 0.2):
        p.line(scale(tick), 255, scale(tick), 260)
        p.text(scale(tick), 274, f"{tick:+.2f}".rstrip("0").rstrip(".") if tick else "0", 12, "middle")
    p.text(500, 294, "NLL less that of maximum likelihood, nats (root scale)", 13, "middle")
    for k, (words, colour, filled) in enumerate((("stories260K", BLUE, True), ("SmolLM2-135M", ORANGE, True), ("within its 95 % interval", GREY, False))):
        p.dot(260 + k * 150, 316, colour, filled)
        p.text(270 + k * 150, 321, words, 13)
    return p


def sampled():
    p = Picture(620, 270)
    at = lambda v: 60 + v / 0.6 * 530
    methods = (("mle", "trained adapter", INK), ("laplace_sampled", "drawn weights", ORANGE), ("laplace_linearized", "linearised", BLUE))
    for seed in range(5):
        found = {m["name"]: m["accuracy"] for m in read(f"quickstart-seed{seed}")["methods"]}
        p.text(50, 38 + seed * 38, f"seed {seed}", 13, "end")
        for k, (name, _, colour) in enumerate(methods):
            y, a = 24 + seed * 38 + k * 10, found[name]
            p.line(at(a["low"]), y, at(a["high"]), y, colour, 2)
            p.dot(at(a["value"]), y, colour, r=3.5)
    p.line(60, 212, 590, 212)
    for tick in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        p.line(at(tick), 212, at(tick), 217)
        p.text(at(tick), 231, f"{tick:.1f}", 12, "middle")
    p.text(325, 248, "accuracy with its 95 % interval, 1,200 test items", 13, "middle")
    for k, (_, words, colour) in enumerate(methods):
        p.dot(130 + k * 150, 262, colour, r=3.5)
        p.text(140 + k * 150, 266, words, 13)
    return p


def core():
    p = Picture(620, 230)
    p.rect(30, 30, 30, 140, ORANGE, opacity=0.5)
    p.text(45, 105, "B", 17, "middle")
    p.text(68, 105, "·", 18)
    p.rect(80, 85, 140, 30, BLUE, opacity=0.4)
    p.text(150, 105, "A", 17, "middle")
    p.text(240, 106, "=", 20)
    p.rect(280, 30, 30, 140, GREY, opacity=0.3)
    p.text(295, 105, "U", 17, "middle")
    p.text(318, 105, "·", 18)
    p.rect(332, 85, 30, 30, GREEN, opacity=0.6)
    p.text(347, 105, "R", 17, "middle")
    p.text(370, 105, "·", 18)
    p.rect(384, 85, 140, 30, GREY, opacity=0.3)
    p.text(454, 105, "Vᵀ", 17, "middle")
    p.text(295, 192, "what it can write, fixed", 12, "middle")
    p.text(454, 137, "what it can read, fixed", 12, "middle")
    p.text(347, 20, "the posterior is over R alone: r × r numbers", 13, "middle", GREEN)
    p.line(347, 28, 347, 80, GREEN, 1, "3 3")
    return p


def left_out_beta():
    p = Picture(560, 430)
    x, y = (lambda v: 60 + v / 1.1 * 460), (lambda v: 370 - v / 1.1 * 340)
    p.rect(60, 30, 460, 340)
    p.line(x(0), y(0), x(1.1), y(1.1), GREY, 1.5, "6 5")
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        p.text(x(tick), 387, f"{tick:.1f}", 12, "middle")
        p.text(52, y(tick) + 4, f"{tick:.1f}", 12, "end")
    groups = (("stories260K-boolq", "stories260K, BoolQ: nothing learnt", PINK), ("smollm2", "SmolLM2, four tasks", ORANGE), ("stories260K", "stories260K, MMLU areas", BLUE))
    for name, cell in cells().items():
        colour = next(colour for start, _, colour in groups if name.startswith(start))
        beta = lambda of: row(cell, of)["found"][0]["value"]
        p.dot(x(beta("ML + temperature, test labels (bound)")), y(beta("ML + leave-one-out temperature")), colour)
    for k, (_, words, colour) in enumerate(groups):
        p.dot(76, 50 + k * 20, colour)
        p.text(88, 55 + k * 20, words, 13)
    p.text(290, 406, "β that the test labels ask for", 13, "middle")
    p.add('<text transform="translate(18 200) rotate(-90)" font-size="13" text-anchor="middle" fill="#222222">β by leaving one out, no label</text>')
    return p


def exposure():
    runs = [read(f"invented_facts/seed-{seed}") for seed in range(3)]
    copies = runs[0]["exposures"]
    p = Picture(620, 340)
    x, y = (lambda c: 60 + math.log2(c + 1) / math.log2(9) * 520), (lambda v: 260 - v / 1.25 * 230)
    p.rect(60, 30, 520, 230)
    lines = (("standard deviation, core space", BLUE, ""), ("standard deviation, Kronecker", GREEN, "9 4"), ("−log-likelihood a token", ORANGE, "3 4"), ("mean token entropy", GREY, "9 4 2 4"))
    for k, (score, colour, dash) in enumerate(lines):
        rows = [next(r for r in run["rows"] if r["answers"] == "own" and r["score"] == score)["by_exposure"] for run in runs]
        means = [sum(values) / len(values) for values in zip(*rows)]
        points = [(x(c), y(v / means[0])) for c, v in zip(copies, means)]
        p.path(points, colour, 2.5, dash)
        for point in points:
            p.dot(*point, colour, r=3.5)
        left, top = 70 + k % 2 * 270, 310 + k // 2 * 20
        p.line(left, top - 4, left + 34, top - 4, colour, 2.5, dash)
        p.text(left + 42, top, score, 13)
    for c in copies:
        p.text(x(c), 277, str(c), 12, "middle")
    for tick in (0.0, 0.5, 1.0):
        p.text(52, y(tick) + 4, f"{tick:.1f}", 12, "end")
        p.line(60, y(tick), 580, y(tick), "#dddddd")
    p.text(320, 293, "copies of a fact in the training set", 13, "middle")
    p.text(60, 20, "doubt about own answers, as a share of that about strangers", 13)
    return p


def rejection():
    runs = [json.loads(path.read_text()) for path in sorted((DOCS / "results/addition").glob("*.json"))]
    levels = len(runs[0]["oracle_risk"])
    p = Picture(620, 400)
    x, y = (lambda share: 60 + share * 520), (lambda risk: 260 - risk * 300)
    p.rect(60, 30, 520, 230)
    of = lambda score: [next(r for r in run["rows"] if r["score"] == score)["risk"] for run in runs]
    lines = (
        ("standard deviation, core space", BLUE, "", None),
        ("standard deviation, Kronecker", GREEN, "9 4", None),
        ("−log-likelihood a token", ORANGE, "3 4", None),
        ("mean token entropy", GREY, "9 4 2 4", None),
        ("Mahalanobis distance, mean over the answer", PINK, "2 3", None),
        ("whoever rejects every error first", INK, "1 3", [run["oracle_risk"] for run in runs]),
    )
    for k, (score, colour, dash, given) in enumerate(lines):
        means = [sum(values) / len(values) for values in zip(*(given or of(score)))]
        p.path([(x((i + 1) / levels), y(v)) for i, v in enumerate(means)], colour, 2.5, dash)
        left, top = 70 + k % 2 * 240, 325 + k // 2 * 22
        p.line(left, top - 4, left + 34, top - 4, colour, 2.5, dash)
        p.text(left + 42, top, score, 13)
    for tick in (0.0, 0.25, 0.5, 0.75):
        p.text(52, y(tick) + 4, f"{tick:.2f}", 12, "end")
        p.line(60, y(tick), 580, y(tick), "#dddddd")
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        p.text(x(tick), 277, f"{tick:.2f}", 12, "middle")
    p.text(320, 297, "share of the sums that are answered, surest first", 13, "middle")
    p.text(60, 20, "share of wrong answers among them", 13)
    return p


def lockstep():
    p = Picture(640, 250)
    p.text(20, 125, "y_<t", 16)
    for s in range(3):
        y = 40 + s * 62
        p.arrow(58, 120, 128, y + 18)
        p.rect(132, y, 130, 38, GREY, opacity=0.2)
        p.rect(232, y + 5, 24, 28, ORANGE, opacity=0.6)
        p.text(180, y + 24, "base", 14, "middle")
        p.text(244, y + 24, f"θ{'₁₂₃'[s]}", 13, "middle")
        for i, v in enumerate(((3, 9, 4, 2), (2, 10, 3, 3), (8, 3, 5, 2))[s]):
            p.rect(290 + i * 16, y + 34 - v * 3, 12, v * 3, BLUE, BLUE, 0.6)
        p.arrow(362, y + 20, 432, 122)
    for i, v in enumerate((13, 22, 12, 7)):
        p.rect(440 + i * 16, 140 - v * 1.6, 12, v * 1.6, GREEN, GREEN, 0.7)
    p.text(472, 160, "p̄", 16, "middle")
    p.arrow(512, 125, 556, 125)
    p.text(562, 130, "y_t", 16)
    p.text(200, 238, "one base, S small adapters", 13, "middle")
    p.text(322, 238, "p_s", 13, "middle")
    p.text(480, 238, "averaged, then a token is chosen", 13, "middle")
    return p


PICTURES = (lora, laplace, structures, harm, sampled, core, left_out_beta, exposure, rejection, lockstep)


def main():
    check, different = "--check" in sys.argv[1:], []
    for draw in PICTURES:
        svg = draw().svg()
        path = DOCS / "how_it_works/pictures" / f"{draw.__name__}.svg"
        for file, text in ((path, svg), (path.with_suffix(".base64"), base64.b64encode(svg.encode()).decode())):
            if not file.exists() or file.read_text() != text:
                different.append(str(file))
                if not check:
                    file.write_text(text)
    print(f"{len(PICTURES)} pictures, {len(different)} files {'differ' if check else 'written'}", *different, sep="\n")
    sys.exit(1 if check and different else 0)


main()
