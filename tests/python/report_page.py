"""Opens pages of a report in headless Chromium and checks what a reader meets.

    python3 tests/python/report_page.py PAGE... [--browser CHROMIUM] [--shots DIR]

Each page is opened on a wide and on a narrow screen, in light and in dark. Checked are: nothing on the console and no request
but the page itself; no sideways scrolling of the page; no text over another or out of its cell; contrast; folding, sorting and
the skip link by the keyboard alone; the page without scripts. Talks to the browser through a pipe, with the standard library
alone. Answers 0 where all holds, 1 with the faults otherwise.
"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SCREENS = [("wide", 1280, 800), ("narrow", 390, 844)]
SCHEMES = ["light", "dark"]
NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]

# Every function answers a list of faults.
CHECKS = r"""
(() => {
  const faults = [];
  const open = [...document.querySelectorAll("details")];
  const seen = (element) => element.checkVisibility() && element.getClientRects().length > 0;
  const box = (element) => element.getBoundingClientRect();
  const told = (element) => `<${element.tagName.toLowerCase()}> “${element.textContent.trim().slice(0, 40)}”`;
  const cross = (a, b, slack) =>
    Math.min(a.right, b.right) - Math.max(a.left, b.left) > slack && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > slack;

  const sideways = (when) => {
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth) faults.push(`${when}: the page is ${root.scrollWidth} wide on ${root.clientWidth}`);
  };

  const overlaps = () => {
    const kinds = "h1, h2, h3, h4, p, li, dl, pre, button, label, input, .scroll, .picture, summary";
    const blocks = [...document.querySelectorAll(kinds)].filter(seen).filter((e) => !e.closest("table"));
    const outer = blocks.filter((e) => !blocks.some((other) => other !== e && other.contains(e)));
    const boxes = outer.map((e) => [box(e), e]).sort((a, b) => a[0].top - b[0].top);
    boxes.forEach(([a, e], i) => {
      for (let j = i + 1; j < boxes.length && boxes[j][0].top < a.bottom; j++) {
        if (cross(a, boxes[j][0], 1)) faults.push(`${told(e)} lies over ${told(boxes[j][1])}`);
      }
    });
    return outer.length;
  };

  // texts of tables stay in their cells
  const cells = () => {
    let n = 0;
    for (const cell of document.querySelectorAll("th, td")) {
      if (!seen(cell) || !cell.textContent.trim()) continue;
      const range = document.createRange();
      range.selectNodeContents(cell);
      // a name that is cut off by its own box stays in that
      const cut = cell.closest(".matrix") && cell.querySelector("span");
      const [inner, outer] = [cut && seen(cut) ? box(cut) : range.getBoundingClientRect(), box(cell)];
      n += 1;
      const out = inner.left < outer.left - 1 || inner.right > outer.right + 1;
      if (out || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1) faults.push(`${told(cell)} leaves its cell`);
    }
    return n;
  };

  // texts of pictures do not touch; a box is higher than its letters
  const pictures = () => {
    let n = 0;
    for (const svg of document.querySelectorAll(".picture svg")) {
      if (!seen(svg)) continue;
      const frame = box(svg);
      const texts = [...svg.querySelectorAll("text")].map((text) => [box(text), text]).sort((a, b) => a[0].top - b[0].top);
      n += texts.length;
      texts.forEach(([a, text], i) => {
        if (a.left < frame.left - 2 || a.right > frame.right + 2) faults.push(`${told(text)} leaves its picture`);
        for (let j = i + 1; j < texts.length && texts[j][0].top < a.bottom; j++) {
          if (cross(a, texts[j][0], 3)) faults.push(`in a picture ${told(text)} lies over ${told(texts[j][1])}`);
        }
      });
    }
    return n;
  };

  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (color) => {
    if (!known.has(color)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = color;
      context.fillRect(0, 0, 1, 1);
      known.set(color, [...context.getImageData(0, 0, 1, 1).data]);
    }
    return known.get(color);
  };
  const luminance = (color) => {
    const [r, g, b] = rgba(color).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (rgba(color)[3] > 0) return color;
    }
    return "#ffffff";
  };
  const contrasts = () => {
    const pairs = new Map();
    for (const element of document.querySelectorAll("h1, h2, h3, h4, p, a, li, dt, dd, pre, button, label, small, th, td, caption, .ticks span, svg text")) {
      if (!seen(element) || !element.textContent.trim()) continue;
      const style = getComputedStyle(element);
      const color = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
      const key = `${color} on ${ground(element)}`;
      if (!pairs.has(key)) pairs.set(key, [color, ground(element), element]);
    }
    for (const [key, [color, under, element]] of pairs) {
      const [a, b] = [luminance(color), luminance(under)].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) faults.push(`contrast of ${told(element)} is ${ratio.toFixed(2)} (${key})`);
    }
    return pairs.size;
  };

  const was = open.map((section) => section.open);
  sideways("as it opens");
  open.forEach((section) => { section.open = true; });
  sideways("with all sections open");
  const counts = { blocks: overlaps(), cells: cells(), texts: pictures(), colours: contrasts(), sections: open.length };
  open.forEach((section, i) => { section.open = was[i]; });
  return { faults, counts };
})()
"""

ANSWER = r"""
(() => {
  const told = document.querySelector("#answer .answer");
  const lead = document.querySelector("#answer .lead");
  return { bottom: (lead ?? told).getBoundingClientRect().bottom, said: told?.textContent ?? lead?.textContent ?? "" };
})()
"""

FOCUS = r"""
(() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  const box = at.getBoundingClientRect();
  return {
    tag: at.tagName, text: at.textContent.trim().slice(0, 40), id: at.id, class: at.className,
    head: at.tagName === "BUTTON" && !!at.closest("th"),
    ringed: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    inView: box.right > 0 && box.left < innerWidth && box.bottom > 0 && box.top < innerHeight,
    open: at.closest("details")?.open ?? null,
    sort: at.closest("th")?.getAttribute("aria-sort") ?? null,
  };
})()
"""

# The first texts of a column, from top to bottom, of the table with the focus; rows without an entry are told as null.
COLUMN = r"""
(() => {
  const head = document.activeElement.closest("th");
  const rows = [...head.closest("table").tBodies[0].rows];
  return rows.map((row) => row.cells.length <= 2 && head.parentElement.cells.length > 2 ? null
    : row.cells[head.cellIndex]?.firstChild?.textContent.trim() ?? null);
})()
"""


class Browser:
    """A headless Chromium at the other end of two pipes."""

    def __init__(self, program):
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        self.profile = tempfile.mkdtemp(prefix="report-page-")
        # the browser reads its descriptor 3 and writes 4
        command = 'exec "$0" "$@" 3<&%d 4>&%d' % (to_browser, from_browser)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                 "--no-first-run", "--remote-debugging-pipe", "--user-data-dir=" + self.profile, "about:blank"]
        self.process = subprocess.Popen(["bash", "-c", command, program, *flags], pass_fds=[to_browser, from_browser],
                                        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.last, self.events = b"", 0, []

    def message(self):
        while b"\0" not in self.buffer:
            chunk = os.read(self.read, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser has gone")
            self.buffer += chunk
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, session=None, **params):
        self.last += 1
        request = {"id": self.last, "method": method, "params": params}
        if session:
            request["sessionId"] = session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def wait(self, method):
        for k, event in enumerate(self.events):
            if event.get("method") == method:
                return self.events.pop(k)
        while True:
            message = self.message()
            if message.get("method") == method:
                return message
            self.events.append(message)

    def close(self):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            pass
        self.process.wait(20)
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    """One page in a tab of its own."""

    def __init__(self, browser, path, width, height, scheme, scripts=True):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.target = target
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(domain + ".enable")
        narrow = width < 700
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if narrow else 1,
                  mobile=narrow)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        if not scripts:
            self.call("Emulation.setScriptExecutionDisabled", value=True)
        browser.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        browser.wait("Page.loadEventFired")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:600])
        return answer["result"].get("value")

    def press(self, key, code, text=None):
        common = {"key": key, "code": key if key != " " else "Space", "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def tab(self):
        self.press("Tab", 9)
        return self.value(FOCUS)

    def enter(self):
        self.press("Enter", 13, "\r")

    def space(self):
        self.press(" ", 32, " ")

    def shot(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self):
        found = []
        for event in self.browser.events:
            params = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    found.append("exception: " + json.dumps(params["exceptionDetails"])[:300])
                case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                    found.append("console: " + json.dumps(params["args"])[:300])
                case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                    found.append("log: " + params["entry"]["text"][:300])
        return found

    def requests(self):
        sent = [e for e in self.browser.events if e.get("method") == "Network.requestWillBeSent"]
        return [e["params"]["request"]["url"] for e in sent]

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)


def number(text):
    """What a cell begins with, in its unit: read here once more, not by the page's own script."""
    units = {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    found = []
    for part in text.split(" / "):
        words = part.replace("−", "-").replace(",", "").lstrip("<>+").split()
        try:
            found.append(float(words[0]) * units.get(words[1] if len(words) > 1 else "", 1))
        except (ValueError, IndexError):
            pass
    return min(found) if found else None


def sorted_as_told(texts, sort):
    numbers = [number(t) if t is not None else None for t in texts]
    known = [n for n in numbers if n is not None]
    if None in numbers and any(n is not None for n in numbers[numbers.index(None):]):
        return False
    return known == sorted(known, reverse=sort == "descending")


def keyboard(page, faults, limit=60):
    """Goes through the page by Tab: skip link, a folded section, the columns of a table."""
    first = page.tab()
    if "skip" not in first["class"] or not first["inView"] or not first["ringed"]:
        faults.append(f"the first Tab does not show the skip link, but {first}")
    page.enter()
    if (at := page.value(FOCUS))["id"] != "answer":
        faults.append(f"the skip link leads to {at}")
    folded, heads = 0, 0
    for _ in range(limit):
        at = page.tab()
        if not at["ringed"]:
            faults.append(f"no focus to be seen at {at}")
        if at["tag"] == "SUMMARY" and not folded:
            folded = 1
            for key in (page.enter, page.space):
                before = page.value(FOCUS)["open"]
                key()
                if page.value(FOCUS)["open"] == before:
                    faults.append(f"{key.__name__} does not fold {at}")
        if at["head"] and heads < 4:
            heads += 1
            original = page.value(COLUMN)
            page.enter()
            one, texts = page.value(FOCUS)["sort"], page.value(COLUMN)
            page.space()
            two, reverse = page.value(FOCUS)["sort"], page.value(COLUMN)
            page.enter()
            three, last = page.value(FOCUS)["sort"], page.value(COLUMN)
            if {one, two} != {"ascending", "descending"} or three != "none" or last != original:
                faults.append(f"sorting by {at} goes through {one}, {two}, {three}")
            if heads > 1 and not (sorted_as_told(texts, one) and sorted_as_told(reverse, two)):
                faults.append(f"sorted by {at}: {one} {texts}, {two} {reverse}")
        if folded and heads == 4:
            return
    faults.append(f"in {limit} steps of Tab were {folded} folded sections and {heads} columns")


def inspect(browser, path, shots):
    faults = []
    for screen, width, height in SCREENS:
        for scheme in SCHEMES:
            page = Page(browser, path, width, height, scheme)
            found = page.value(CHECKS)
            here = found["faults"]
            answer = page.value(ANSWER)
            if not answer["said"]:
                here.append("there is no answer")
            elif screen == "wide" and answer["bottom"] > height:
                here.append(f"the answer ends at {answer['bottom']:.0f} on a screen of {height}")
            if shots:
                page.shot(shots / f"{path.stem}-{screen}-{scheme}.png")
            keyboard(page, here)
            here += page.complaints()
            here += [f"requests {url}" for url in page.requests() if url != path.resolve().as_uri()]
            page.close()
            faults += [f"{path.name}, {screen}, {scheme}: {fault}" for fault in here]
            print(f"{path.name}, {screen}, {scheme}: {found['counts']}")
    page = Page(browser, path, *SCREENS[0][1:], "light", scripts=False)
    bare = page.value("({ buttons: document.querySelectorAll('button').length, rows: document.querySelectorAll('tbody tr').length })")
    if bare["buttons"] or not bare["rows"]:
        faults.append(f"{path.name}, without scripts: {bare}")
    page.close()
    return faults


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("pages", nargs="+", type=pathlib.Path)
    arguments.add_argument("--browser", default=next(filter(None, map(shutil.which, NAMES)), None))
    arguments.add_argument("--shots", type=pathlib.Path, help="directory for pictures of the first screens")
    given = arguments.parse_args()
    if not given.browser:
        sys.exit(f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    if given.shots:
        given.shots.mkdir(parents=True, exist_ok=True)
    browser = Browser(given.browser)
    try:
        faults = [fault for path in given.pages for fault in inspect(browser, path, given.shots)]
    finally:
        browser.close()
    for fault in faults[:60]:
        print(fault)
    print(f"{len(given.pages)} pages, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
