"use strict";
// Sorting by a column, and folding; the page is complete without.
for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0], head = [...table.tHead.rows].at(-1).cells;
  const value = (row, place) => {
    const cell = row.cells[place], text = cell.dataset.value ?? cell.textContent.trim();
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  [...head].forEach((cell, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const down = cell.getAttribute("aria-sort") === "descending" ? 1 : -1;
      for (const other of head) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      const order = (a, b) => {
        const [x, y] = [value(a, place), value(b, place)];
        if (x === null || y === null) return (x === null) - (y === null);  // what is missing stays last
        return down * (typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
const every = [...document.querySelectorAll("details")];
const button = document.createElement("button");
button.type = "button";
button.textContent = "unfold all";
button.addEventListener("click", () => {
  const open = button.textContent === "unfold all";
  for (const each of every) each.open = open;
  button.textContent = open ? "fold all" : "unfold all";
});
document.querySelector("nav").append(button);
const show = () => {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
};
addEventListener("hashchange", show);
show();
let folded = [];
addEventListener("beforeprint", () => {
  folded = every.filter((each) => !each.open);
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});
