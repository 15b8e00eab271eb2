"use strict";

// Each heading of a table becomes a button that sorts the rows by its column, and with a second
// click in the opposite order. Numbers come before text, and empty cells last.

for (const heading of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "sort";
  button.append(...heading.childNodes);
  heading.append(button);
  button.addEventListener("click", () => sortBy(heading));
}

function sortBy(heading) {
  const ascending = heading.getAttribute("aria-sort") !== "ascending";
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const [body] = heading.closest("table").tBodies;
  const rows = [...body.rows].map((row) => [keyOf(row.cells[heading.cellIndex]), row]);
  rows.sort(([a], [b]) => compare(a, b, ascending ? 1 : -1));
  body.append(...rows.map(([, row]) => row));
}

/** The number that a cell begins with, if only a unit or an error follows; or else its text. */
function keyOf(cell) {
  const text = cell.textContent.trim();
  const found = /^[−-]?[\d,]*\.?\d+(e[-+]?\d+)?(?=%?$| ±)/.exec(text);
  return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : text;
}

function compare(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  if (typeof a !== typeof b) return direction * (typeof a === "number" ? -1 : 1);
  return direction * (typeof a === "number" ? a - b : a.localeCompare(b, "en"));
}
