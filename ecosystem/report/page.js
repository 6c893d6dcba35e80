"use strict";
// Draw every chart from its specification in the page, in the colours of light or dark mode.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const specs = read("specs");
const configs = read("configs");
const dark = matchMedia("(prefers-color-scheme: dark)");

async function draw(place) {
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // interpret expressions, since the content security policy forbids compiling them to functions
    config: dark.matches ? configs.dark : configs.light,
    tooltip: { theme: dark.matches ? "dark" : "light" },
  };
  try {
    await vegaEmbed(place, specs[place.dataset.chart], options);
    place.dataset.drawn = "yes";
  } catch (error) {
    place.textContent = `This chart could not be drawn (${error.message}); see its image in the charts folder.`;
    place.dataset.drawn = "failed";
  }
}

async function drawAll() {
  for (const place of document.querySelectorAll(".chart")) {
    if (!place.closest("[hidden]")) await draw(place);
  }
  document.documentElement.dataset.ready = "yes";
}

for (const tab of document.querySelectorAll('[role="tab"]')) {
  tab.addEventListener("click", () => {
    for (const other of tab.parentElement.children) {
      other.setAttribute("aria-selected", String(other === tab));
      document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
    const panel = document.getElementById(tab.getAttribute("aria-controls"));
    panel.querySelectorAll(".chart").forEach(draw);
  });
}
dark.addEventListener("change", drawAll);
drawAll();
