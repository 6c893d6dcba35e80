"use strict";
// Draw every chart from its specification in the page, in the colours of light or dark mode; paper is light.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const specs = read("specs");
const configs = read("configs");
const dark = matchMedia("(prefers-color-scheme: dark)");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

async function draw(place, mode, width) {
  const { title, ...spec } = specs[place.dataset.chart]; // the page shows the title itself
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // interpret expressions, since the content security policy forbids compiling them to functions
    config: configs[mode],
    tooltip: { theme: mode },
  };
  const fluid = { width, autosize: { type: "fit-x", contains: "padding" } };
  try {
    await vegaEmbed(place.firstElementChild, { ...spec, ...fluid }, options);
    place.dataset.drawn = "yes";
  } catch (error) {
    place.textContent = `This chart could not be drawn (${error.message}); see its image in the charts folder.`;
    place.dataset.drawn = "failed";
  }
}

// Draw the charts that are not hidden, unless they are drawn so already. On paper, half and full width are known.
async function drawAll({ within = document, paper = false } = {}) {
  const mode = dark.matches && !paper ? "dark" : "light";
  for (const place of all(".chart", within)) {
    const width = paper ? (place.closest(".grid") ? 310 : 640) : "container";
    if (place.closest("[hidden]") || place.dataset.as === `${mode} ${width}`) continue;
    place.dataset.as = `${mode} ${width}`;
    await draw(place, mode, width);
  }
  document.documentElement.dataset.ready = "yes";
}

// Tabs: a click or an arrow key opens one.
function open(tab) {
  for (const other of tab.parentElement.children) {
    other.setAttribute("aria-selected", String(other === tab));
    document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
  }
  drawAll({ within: document.getElementById(tab.getAttribute("aria-controls")) });
}

for (const tab of all('[role="tab"]')) {
  tab.addEventListener("click", () => open(tab));
  tab.addEventListener("keydown", (event) => {
    const next = { ArrowRight: tab.nextElementSibling, ArrowLeft: tab.previousElementSibling }[event.key];
    if (next) {
      next.focus();
      open(next);
    }
  });
}

// A box that shows another form of a chart in its place.
for (const box of all(".choice input")) {
  const [one, other] = all(":scope > div", box.closest(".choice"));
  const choose = () => {
    one.hidden = box.checked;
    other.hidden = !box.checked;
    drawAll({ within: box.closest(".choice") });
  };
  box.addEventListener("change", choose);
  if (box.checked) choose(); // restored by the browser
}

// The data of a chart as a CSV file, made here so that the page needs no other file. Python makes the same one.
function csv(datasets) {
  const parts = Object.entries(datasets).filter(([name]) => !name.startsWith("_"));
  const columns = new Set(parts.flatMap(([, rows]) => rows.flatMap(Object.keys)).filter((c) => !c.startsWith("_")));
  const plain = (column, value) =>
    column === "date" && typeof value === "number" ? new Date(value).toISOString().slice(0, 10) : (value ?? "");
  const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const lines = parts.flatMap(([name, rows]) =>
    rows.map((row) => [name, ...[...columns].map((column) => plain(column, row[column]))])
  );
  return [["part", ...columns], ...lines].map((line) => line.map(cell).join(",") + "\n").join("");
}

for (const link of all("[data-csv]")) {
  link.addEventListener("click", () => {
    const file = new Blob([csv(specs[link.dataset.csv].datasets)], { type: "text/csv" });
    link.href = URL.createObjectURL(file);
  });
}

for (const button of all("button.copy")) {
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(button.closest("details").querySelector("pre"));
    const copied = document.execCommand("copy"); // the clipboard of navigator asks for permissions
    button.nextElementSibling.textContent = copied ? "Copied." : "Selected; press Ctrl+C.";
  });
}

// Paper shows what is folded, in light colours. The charts are drawn at once, before the browser prints.
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details.block:not([open])");
  for (const one of folded) one.open = true;
  drawAll({ paper: true });
});
addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
  drawAll();
});

dark.addEventListener("change", () => drawAll());
drawAll();
