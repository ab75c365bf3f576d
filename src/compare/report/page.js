"use strict";
(() => {
  const UNITS = { ms: 1e-3, s: 1, min: 60, h: 3600, B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };

  // the number that a text begins with, in its unit; of several, one for each seed, the least
  const numberOf = (text) => {
    const numbers = text.split(" / ").map((part) => {
      const plain = part.replaceAll("−", "-").replaceAll(",", "").replace(/^[<>+]/, "").trim();
      const found = plain.match(/^(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*([a-zA-Z]*)/);
      return found ? Number(found[1]) * (UNITS[found[2]] ?? 1) : null;
    }).filter((number) => number !== null);
    return numbers.length ? Math.min(...numbers) : null;
  };

  const ownText = (cell) => cell?.firstChild?.textContent.trim() ?? "";

  // what a row is sorted by in a column: a number, a text, or nothing
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (column > 0 && (!cell || cell.classList.contains("reason"))) return null;
    if (column === 0 || cell.classList.contains("words")) return ownText(cell);
    return numberOf(ownText(cell));
  };

  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);

  // rows that move together: of methods, each with the variants that refer to it
  const blocks = (table) => {
    const found = [];
    for (const row of table.tBodies[0].rows) {
      if (table.dataset.order === "methods" && row.classList.contains("variant") && found.length) found.at(-1).push(row);
      else found.push([row]);
    }
    return found;
  };

  const sortable = (table) => {
    const original = blocks(table);
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const higherIsBetter = /↑|^P\(|accuracy|coverage|AUROC/.test(head.textContent) && !head.textContent.includes("↓");
      const best = higherIsBetter ? "descending" : "ascending";
      const other = best === "ascending" ? "descending" : "ascending";
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: best, [best]: other, [other]: "none" }[head.getAttribute("aria-sort")];
        heads.forEach((each) => each.setAttribute("aria-sort", each === head ? next : "none"));
        const keyed = original.map((block) => [keyOf(block[0], column), block]);
        if (next !== "none") {
          const way = next === "ascending" ? 1 : -1;
          // what has nothing there stays last either way
          keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : way * compare(a, b)));
        }
        table.classList.toggle("sorted", next !== "none" && table.dataset.order !== "methods");
        table.tBodies[0].append(...keyed.flatMap(([, block]) => block));
      });
    });
  };

  // a link into a folded section opens it
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  };

  const all = document.createElement("button");
  all.type = "button";
  all.className = "all";
  const sections = () => [...document.querySelectorAll("main details")];
  const label = (open) => { all.textContent = open ? "Fold all sections" : "Open all sections"; };
  label(false);
  all.addEventListener("click", () => {
    const open = all.textContent.startsWith("Open");
    sections().forEach((section) => { section.open = open; });
    label(open);
  });
  document.querySelector("nav").append(all);

  document.querySelectorAll("table[data-order=rows], table[data-order=methods]").forEach(sortable);
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", () => sections().forEach((section) => { section.open = true; }));
  reveal();
})();
