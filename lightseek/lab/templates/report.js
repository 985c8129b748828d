"use strict";

// Sort a table by a column: numbers by their value, texts as people order them, and empty cells last.
function sort(header) {
  const table = header.closest("table");
  const headers = [...header.parentElement.children];
  const column = headers.indexOf(header);
  const now = header.getAttribute("aria-sort");
  const first = header.dataset.first || "ascending";
  const order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
  for (const other of headers) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const value = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, place) => ({ row, place, value: value(row) }));
  const numbers = rows.every(({ value }) => value === "" || Number.isFinite(Number(value)));
  rows.sort((a, b) => {
    if ((a.value === "") !== (b.value === "")) return a.value === "" ? 1 : -1;
    const compared = numbers ? a.value - b.value : a.value.localeCompare(b.value, undefined, { numeric: true });
    return sign * compared || a.place - b.place;
  });
  body.append(...rows.map(({ row }) => row));
}

for (const button of document.querySelectorAll("th[aria-sort] button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}

// Show the plots and the differences of one metric. Without this script, all of them are shown.
const choice = document.getElementById("metric");
function choose() {
  for (const part of document.querySelectorAll("[data-metric]")) part.hidden = part.dataset.metric !== choice.value;
  const table = document.getElementById("differences-table");
  if (table) {
    const none = [...table.tBodies[0].rows].every((row) => row.hidden);
    if (none) for (const row of table.tBodies[0].rows) row.hidden = false;
  }
}
if (choice) {
  choice.closest(".choose").hidden = false;
  choice.addEventListener("change", choose);
  choose();
}

// A page that is opened from a file may not use the clipboard in every browser: then the command is selected.
const copy = document.getElementById("copy");
if (copy) {
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    const command = document.getElementById("command-line");
    try {
      await navigator.clipboard.writeText(command.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(command);
      copy.textContent = "Selected: press Ctrl+C";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 3000);
  });
}

// A page that is pressed takes the whole width, so that its letters can be read.
for (const button of document.querySelectorAll(".zoom")) {
  button.addEventListener("click", () => {
    const large = button.closest(".view").classList.toggle("large");
    button.setAttribute("aria-pressed", String(large));
  });
}

// A print shows all of the page.
const opened = [];
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not([open])")) {
    part.open = true;
    opened.push(part);
  }
});
addEventListener("afterprint", () => {
  for (const part of opened.splice(0)) part.open = false;
});
