"use strict";
// Tables that sort by a click on a column's head. Rows stay within their group; missing values come last either way.

// The order of two cells: numbers by value, texts by the alphabet. A cell is {number, text}; number is null if there is none.
function compareCells(a, b, descending) {
  const missing = (cell) => cell.number === null && cell.text === "";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if ((a.number === null) !== (b.number === null)) return a.number === null ? 1 : -1;
  const order = a.number === null ? a.text.localeCompare(b.text, "en", { numeric: true }) : a.number - b.number;
  return descending ? -order : order;
}

// The rows in their new order; rows is [[cell, ...], ...]. Equal rows keep their order.
function sortedIndices(rows, column, descending) {
  return rows.map((_, i) => i).sort((i, j) => compareCells(rows[i][column], rows[j][column], descending) || i - j);
}

// Numbers are most interesting from the top, texts from A.
function nextDirection(current, numeric) {
  if (current === "descending") return "ascending";
  if (current === "ascending") return "descending";
  return numeric ? "descending" : "ascending";
}

function readCell(cell) {
  const value = cell.getAttribute("data-sort");
  const numbered = cell.hasAttribute("data-number");
  if (numbered) return { number: value === "" ? null : Number(value), text: "" };
  return { number: null, text: value === null ? cell.textContent.trim() : value };
}

function sortTable(table, column) {
  const heads = Array.from(table.tHead.rows[0].cells);
  const bodies = Array.from(table.tBodies);
  const data = (body) => Array.from(body.rows).filter((row) => !row.classList.contains("group"));
  const numeric = bodies.some((body) => data(body).some((row) => readCell(row.cells[column]).number !== null));
  const direction = nextDirection(heads[column].getAttribute("aria-sort"), numeric);
  heads.forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", direction);
    else head.removeAttribute("aria-sort");
  });
  for (const body of bodies) {
    const rows = data(body);
    const cells = rows.map((row) => Array.from(row.cells, readCell));
    for (const i of sortedIndices(cells, column, direction === "descending")) body.appendChild(rows[i]);
  }
  return direction;
}

function enhance(document) {
  const status = document.getElementById("status");
  for (const table of document.querySelectorAll("table.sortable")) {
    Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
      const name = head.textContent.trim();
      if (!name) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.addEventListener("click", () => {
        status.textContent = `Sorted by ${name}, ${sortTable(table, column)}.`;
      });
      if (head.firstElementChild) button.prepend(head.firstElementChild); // a method's colour
      head.replaceChildren(button);
    });
  }
}

if (typeof module !== "undefined") module.exports = { compareCells, sortedIndices, nextDirection, sortTable, enhance };
else enhance(document);
