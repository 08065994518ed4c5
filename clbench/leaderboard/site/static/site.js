"use strict";

// In the head, before the page is drawn: what only works with scripts may show, in the theme that was chosen.
document.documentElement.classList.add("scripted");
const remembered = (() => {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // storage may be refused, as for some browsers' local files
  }
})();
if (remembered === "dark" || remembered === "light") document.documentElement.dataset.theme = remembered;

document.addEventListener("DOMContentLoaded", () => {
  theme();
  metricSwitch();
  sorting();
  filters();
  compare();
  copying();
});

function all(selector, within = document) {
  return [...within.querySelectorAll(selector)];
}

function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    const chosen = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem("theme", chosen);
    } catch {
      // it then holds for this page alone
    }
    show();
  });
  system.addEventListener("change", show);
  show();
}

function metricSwitch() {
  const buttons = all("[data-metric]");
  for (const button of buttons) {
    button.addEventListener("click", () => {
      document.querySelector("main").dataset.shown = button.dataset.metric;
      for (const other of buttons) {
        other.setAttribute("aria-pressed", String(other.dataset.metric === button.dataset.metric));
      }
    });
  }
}

// --- The board ---

function sorting() {
  const body = document.getElementById("methods");
  if (!body) return;
  const headings = all("thead th", document.getElementById("board"));
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const turned = { ascending: "descending", descending: "ascending" }[heading.getAttribute("aria-sort")];
      const direction = turned ?? heading.dataset.first;
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", direction);
      const rows = [...body.rows].sort((a, b) => inOrder(a.cells[column], b.cells[column], direction));
      body.append(...rows);
    });
  });
}

function inOrder(a, b, direction) {
  const [left, right] = [a.dataset.sort, b.dataset.sort];
  if (left === undefined || right === undefined) return (left === undefined) - (right === undefined); // blanks last
  const numbers = [Number(left), Number(right)];
  const difference = numbers.some(Number.isNaN) ? (left < right ? -1 : Number(left > right)) : numbers[0] - numbers[1];
  return direction === "ascending" ? difference : -difference;
}

function filters() {
  const find = document.getElementById("find");
  if (!find) return;
  const choices = all("[data-filter]");
  const rows = all("#methods tr");
  const apply = () => {
    const wanted = find.value.trim().toLowerCase();
    const kept = new Set();
    for (const row of rows) {
      const has = ({ value, dataset }) => !value || row.dataset[dataset.filter].split(" ").includes(value);
      const fits = row.dataset.method.toLowerCase().includes(wanted) && choices.every(has);
      row.hidden = !fits;
      if (fits) kept.add(row.dataset.method);
    }
    for (const drawn of all(".plots [data-method]")) drawn.classList.toggle("faint", !kept.has(drawn.dataset.method));
    const isFew = kept.size < rows.length && kept.size <= MOST_NAMED;
    for (const section of all(".plots")) section.classList.toggle("few", isFew);
    for (const plot of new Set(all("[data-end]").map((name) => name.ownerSVGElement))) placeEnds(plot, isFew);
    const count = document.getElementById("count");
    count.textContent = kept.size === rows.length ? "" : `${kept.size} of ${rows.length} methods`;
  };
  find.addEventListener("input", apply);
  for (const choice of choices) choice.addEventListener("change", apply);
  apply(); // a browser may bring back what was typed
}

const MOST_NAMED = 14; // as in clbench/leaderboard/site/drawing.py

// The names at the ends of lines: apart from each other where few lines are drawn, else where the page has them.
function placeEnds(plot, isFew) {
  const end = (name) => Number(name.dataset.end);
  let free = 0;
  for (const name of all("[data-end]", plot).sort((a, b) => end(a) - end(b))) {
    name.setAttribute("y", name.dataset.y);
    if (!isFew || name.parentElement.classList.contains("faint")) continue;
    name.setAttribute("y", String(Math.max(free, end(name))));
    free = Math.max(free, end(name)) + 16;
  }
}

// --- Two methods ---

function compare() {
  const source = document.getElementById("data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const chosen = { left: document.getElementById("left"), right: document.getElementById("right") };
  const show = () => {
    const names = { left: chosen.left.value, right: chosen.right.value };
    const verdict = data.verdicts[`${names.left} ${names.right}`] ?? data.verdicts[`${names.right} ${names.left}`] ?? "";
    document.getElementById("verdict").textContent = verdict;
    for (const [side, name] of Object.entries(names)) {
      for (const heading of all(`[data-name="${side}"]`)) heading.textContent = name;
    }
    data.scales.forEach(([low, high, most], metric) => {
      const left = data.methods[names.left].matrices[metric];
      const right = data.methods[names.right].matrices[metric];
      const differences = left.map((row, i) =>
        row.map((value, j) => (value === null || right[i][j] === null ? null : Number((value - right[i][j]).toFixed(4)))),
      );
      fill(`left-${metric}`, left, (value) => scoreShade(value, low, high), names.left);
      fill(`right-${metric}`, right, (value) => scoreShade(value, low, high), names.right);
      fill(`difference-${metric}`, differences, (value) => differenceShade(value, most), `${names.left} minus ${names.right}`);
      const table = document.querySelector(`[data-figures="${metric}"]`);
      ["left", "right"].forEach((side, column) => {
        data.methods[names[side]].figures[metric].forEach(([text, under], row) => {
          const cell = table.tBodies[0].rows[row].cells[column + 1];
          const deviation = document.createElement("span");
          deviation.className = "deviation";
          deviation.textContent = under;
          cell.replaceChildren(`${text} `, deviation);
        });
      });
    });
  };
  chosen.left.addEventListener("change", show);
  chosen.right.addEventListener("change", show);
}

function fill(id, matrix, shade, caption) {
  const table = document.querySelector(`[data-heat="${id}"]`);
  table.caption.firstElementChild.textContent = caption;
  table.parentElement.setAttribute("aria-label", caption);
  matrix.forEach((row, i) => {
    row.forEach((value, j) => {
      const cell = table.tBodies[0].rows[i].cells[j + 1];
      const [text, name] = value === null ? ["", ""] : shade(value);
      cell.textContent = text.replace("-", "−");
      cell.className = name;
    });
  });
}

// As clbench/leaderboard/site/heat.py shades them.
function scoreShade(value, low, high) {
  const step = high > low ? Math.floor((16 * (value - low)) / (high - low)) : 0;
  return [value.toFixed(2), `h${Math.min(Math.max(step, 0), 15)}`];
}

function differenceShade(value, most) {
  const step = most > 0 ? Math.min(Math.ceil((7 * Math.abs(value)) / most - 0.5), 7) : 0;
  const text = value < 0 ? value.toFixed(2) : `+${value.toFixed(2)}`;
  return [text, step ? `${value > 0 ? "p" : "n"}${step}` : "d0"];
}

// --- The command ---

function copying() {
  for (const button of all("[data-copy]")) {
    const code = document.getElementById(button.dataset.copy);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // no clipboard here: at least it is marked
        button.textContent = "Selected";
      }
    });
  }
}
