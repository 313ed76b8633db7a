
"use strict";
(function () {
  const table = document.getElementById("variants");
  const groups = Array.from(table.tBodies);
  const all = groups.map((group) => Array.from(group.rows));
  const rows = Array.from(table.querySelectorAll("tbody tr:not(.group)"));
  const filter = document.getElementById("filter");
  const front = document.getElementById("front");
  const families = Array.from(document.querySelectorAll("#families input"));
  const shown = document.getElementById("shown");

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = new Set(families.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const row of rows) {
      const name = row.cells[1].textContent.toLowerCase();
      const visible = chosen.has(row.dataset.family) && words.every((word) => name.includes(word)) &&
        (!front.checked || row.classList.contains("front"));
      row.hidden = !visible;
      count += visible ? 1 : 0;
    }
    for (const group of groups) {
      const own = Array.from(group.rows);
      own.filter((row) => row.classList.contains("group")).forEach((row) => { row.hidden = own.every((other) => other === row || other.hidden); });
    }
    shown.textContent = count + " of " + rows.length;
  }

  function value(row, column, text) {
    const cell = row.cells[column];
    if (text) return cell.textContent.trim();
    const number = parseFloat(cell.dataset.value);
    return Number.isNaN(number) ? null : number;
  }

  function regroup() {
    groups.forEach((group, index) => group.append(...all[index]));
  }

  function sortBy(heading) {
    const column = heading.cellIndex;
    const text = heading.dataset.kind === "text";
    const before = heading.getAttribute("aria-sort");
    const first = text ? "ascending" : "descending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    if (before && before !== first) {  // the third time: as it was
      regroup();
      show();
      return;
    }
    const way = !before ? first : text ? "descending" : "ascending";
    heading.setAttribute("aria-sort", way);
    const sign = way === "descending" ? -1 : 1;
    const sorted = rows.slice().sort((one, other) => {
      const a = value(one, column, text), b = value(other, column, text);
      if (a === null || b === null) return (a === null) - (b === null);  // empty cells last, either way
      return text ? sign * a.localeCompare(b) : sign * (a - b);
    });
    groups[0].append(...sorted);  // one list: the groups' headings are left without rows, and so hidden
    show();
  }

  for (const heading of table.tHead.rows[0].cells) {
    if (heading.dataset.kind === "none") continue;
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sortBy(heading));
    heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sortBy(heading); });
  }
  filter.addEventListener("input", show);
  front.addEventListener("change", show);
  families.forEach((box) => box.addEventListener("change", show));
  show();
})();
