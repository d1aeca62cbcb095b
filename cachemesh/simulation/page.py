"""The frame of a report: what stays the same in every one."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
body {
  font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1280px; margin: 0 auto; padding: 1.5rem;
}
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
p { margin: .3rem 0; }
.advice { border-left: 6px solid #999; background: #f6f6f6; padding: .8rem 1.1rem; }
.advice.met { border-color: #009e73; background: #effaf5; }
.advice.unmet { border-color: #d55e00; background: #fdf3ec; }
.advice strong { font-size: 1.1rem; }
.figures { display: flex; flex-wrap: wrap; gap: 2.2rem; margin-top: .8rem; }
.figures b { display: block; font-size: 1.3rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; white-space: nowrap; }
th, td { padding: .25rem .4rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:nth-child(2), td:nth-child(2) { text-align: left; }
th { vertical-align: bottom; }
th button {
  font: inherit; font-weight: 600; border: 0; background: none; padding: 0;
  cursor: pointer; white-space: normal; text-align: inherit;
}
th[aria-sort=ascending] button::after { content: " \\25b2"; }
th[aria-sort=descending] button::after { content: " \\25bc"; }
tr.chosen td { background: #effaf5; font-weight: 600; }
tbody tr:not(.chosen):not(.front) td { color: #777; }
.facts { display: flex; flex-wrap: wrap; gap: 0 4rem; }
dl { display: grid; grid-template-columns: max-content auto; gap: .15rem 1rem; margin: 0; }
dt { color: #777; }
dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 2rem; color: #777; font-size: .85rem; }
"""

SCRIPT: Final = """
const table = document.getElementById("configurations"), body = table.tBodies[0];
const worth = (row, at) => {
  const cell = row.cells[at];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
};
table.tHead.addEventListener("click", event => {
  const head = event.target.closest("th");
  if (!head) return;
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const each of head.parentNode.cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const at = head.cellIndex;
  const order = (a, b) => { const x = worth(a, at), y = worth(b, at); return sign * (x < y ? -1 : x > y ? 1 : 0); };
  body.append(...Array.from(body.rows).sort(order));
});
"""

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{advice}
{charts}
<section><h2>All configurations</h2><div class="scroll">{table}</div></section>
<section class="facts">{facts}</section>
<footer>{made}</footer>
<script type="application/json" id="study">{document}</script>
<script>{script}</script>
</body>
</html>
"""
"""It loads nothing, and may not: the policy says so to the browser."""
