"use strict";
// Sorts a table by the column whose heading is pressed; pressed again, the other way round.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const column = head.cellIndex, isText = head.classList.contains("text");
    const before = head.getAttribute("aria-sort");
    const sign = (before ? before === "descending" : isText) ? 1 : -1;
    for (const each of head.parentElement.cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const rows = [...body.rows];
    rows.sort((a, b) => {
      const x = value(a), y = value(b);
      if (isText) return sign * x.localeCompare(y);
      if (x === "" || y === "") return (x === "") - (y === "");  // unknown ones come last
      return sign * (Number(x) - Number(y));
    });
    body.append(...rows);
  });
}
