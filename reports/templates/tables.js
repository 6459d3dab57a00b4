// Tables sort, filter, hide columns and copy; without this script they are plain tables.
"use strict";

// The number that a text begins with, null where it begins with none.
function numberOf(cell) {
  const text = cell.dataset.value ?? cell.textContent.replace(/,/g, "").replace("−", "-").replace(/^[±<]\s*/, "");
  return /^[-+]?[\d.]/.test(text) ? parseFloat(text) : null;
}

function sortBy(table, column, rising) {
  const rows = [...table.tBodies[0].rows];
  const numeric = rows.some((row) => numberOf(row.cells[column]) !== null);
  const key = (row) => (numeric ? numberOf(row.cells[column]) : row.cells[column].textContent);
  rows.sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === null || y === null) return (x === null) - (y === null);
    return (numeric ? x - y : x.localeCompare(y)) * (rising ? 1 : -1);
  });
  table.tBodies[0].append(...rows);
}

// The texts that are shown: headings first.
function shownTexts(table) {
  const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
  return rows.map((row) => [...row.cells].filter((cell) => !cell.hidden).map((cell) => cell.textContent.trim()));
}

const SPECIAL = { "\\": "\\textbackslash{}", "±": "$\\pm$", "×": "$\\times$", "–": "--", "≤": "$\\le$", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
const FORMS = {
  CSV: (lines) => lines.map((line) => line.map((text) => (/[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text)).join(",")).join("\n"),
  Markdown: ([head, ...lines]) => {
    const row = (line) => `| ${line.map((text) => text.replace(/[\\|<>`*_]/g, "\\$&")).join(" | ")} |`;
    return [row(head), `|${"---|".repeat(head.length)}`, ...lines.map(row)].join("\n");
  },
  LaTeX: ([head, ...lines]) => {
    const row = (line) => `${line.map((text) => text.replace(/[\\±×–≤~^&%#_${}]/g, (one) => SPECIAL[one] ?? `\\${one}`)).join(" & ")} \\\\`;
    return [`\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule", row(head), "\\midrule", ...lines.map(row), "\\bottomrule", "\\end{tabular}"].join("\n");
  },
};

function columnMenu(table) {
  const boxes = [...table.tHead.rows[0].cells].slice(1).map((head, index) => {
    const box = make("input", { type: "checkbox", checked: true, onchange: () => {
      for (const row of table.rows) row.cells[index + 1].hidden = !box.checked;
    } });
    return make("label", {}, box, " ", head.textContent);
  });
  return make("details", { class: "columns" }, make("summary", {}, "Columns"), make("div", {}, ...boxes));
}

function equip(holder) {
  const table = holder.querySelector("table");
  const filter = make("input", { type: "search", placeholder: "Filter", "aria-label": `Filter ${table.dataset.name}`, oninput: () => {
    const wanted = filter.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  } });
  const copies = Object.entries(FORMS).map(([name, form]) =>
    make("button", { type: "button", "aria-label": `Copy as ${name}`, onclick: (event) => copy(form(shownTexts(table)), event.currentTarget) }, name));
  holder.prepend(make("div", { class: "tools" }, filter, columnMenu(table), make("span", { class: "copies" }, "Copy ", ...copies)));
  for (const head of [...table.tHead.rows[0].cells]) {
    const button = make("button", { type: "button", onclick: () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      sortBy(table, head.cellIndex, rising);
    } }, head.textContent);
    head.replaceChildren(button);
  }
}

document.querySelectorAll(".table").forEach(equip);
