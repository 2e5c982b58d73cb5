"use strict";
(() => {
  const looks = JSON.parse(document.getElementById("looks").textContent);
  const figures = [...document.querySelectorAll("figure")];
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const printWidth = 680;
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
  };

  const paper = () => root.dataset.paper || (prefersDark.matches ? "dark" : "light");

  // A figure's looks on a paper: the template, and the colour scale whose zero is the paper's colour.
  function look(layout, name) {
    const scale = layout.meta && looks[name].scales[layout.meta.scale];
    const coloured = scale ? { "coloraxis.colorscale": scale } : {};
    return { template: looks[name].template, ...coloured };
  }

  function draw(figure) {
    if (figure.dataset.drawn) return;
    const drawing = figure.querySelector(".drawing");
    try {
      const { data, layout, menu } = JSON.parse(figure.querySelector("script").textContent);
      const { template, ...coloured } = look(layout, paper());
      layout.template = template;
      if (coloured["coloraxis.colorscale"]) layout.coloraxis.colorscale = coloured["coloraxis.colorscale"];
      Plotly.newPlot(drawing, data, layout, config);
      if (menu.length) addMenu(figure.querySelector(".menu"), drawing, menu);
      figure.dataset.drawn = "yes";
    } catch (error) {
      figure.dataset.drawn = "failed";
      drawing.textContent = `This figure could not be drawn: ${error.message}`;
      console.error(error);
    }
  }

  function addMenu(place, drawing, menu) {
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Choose what is shown");
    const groups = new Map();
    menu.forEach((entry, index) => {
      const option = new Option(withoutGroup(entry), index);
      if (!entry.group) return select.append(option);
      if (!groups.has(entry.group)) {
        const group = document.createElement("optgroup");
        group.label = entry.group;
        groups.set(entry.group, group);
        select.append(group);
      }
      groups.get(entry.group).append(option);
    });
    select.addEventListener("change", () => {
      const [data, layout] = menu[select.value].args;
      drawing.style.minHeight = `${layout.height}px`;
      Plotly.update(drawing, data, layout);
    });
    place.append(select);
  }

  // The group stands above its entries here, so that it need not be said in each.
  function withoutGroup(entry) {
    const said = `${entry.group}: `;
    return entry.group && entry.label.startsWith(said) ? entry.label.slice(said.length) : entry.label;
  }

  const drawn = () => figures.filter((figure) => figure.dataset.drawn === "yes");

  function restyle(name, size = {}) {
    for (const figure of drawn()) {
      const drawing = figure.querySelector(".drawing");
      Plotly.relayout(drawing, { ...look(drawing.layout, name), ...size });
    }
  }

  // Auto, light, dark, auto, ...; remembered where the browser lets a file remember.
  const button = document.getElementById("paper");
  function choose(name) {
    if (name === "auto") delete root.dataset.paper;
    else root.dataset.paper = name;
    button.textContent = `Paper: ${name}`;
    restyle(paper());
  }
  button.addEventListener("click", () => {
    const order = ["auto", "light", "dark"];
    const next = order[(order.indexOf(root.dataset.paper || "auto") + 1) % order.length];
    choose(next);
    try { localStorage.setItem("layerscope-paper", next); } catch { /* private windows refuse */ }
  });
  try { choose(localStorage.getItem("layerscope-paper") || "auto"); } catch { /* as by default */ }
  prefersDark.addEventListener("change", () => restyle(paper()));

  addEventListener("beforeprint", () => {
    figures.forEach(draw);
    restyle("light", { autosize: false, width: printWidth });
  });
  addEventListener("afterprint", () => restyle(paper(), { autosize: true, width: null }));

  // Figures are drawn shortly before they scroll into view: a long report opens at once.
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) draw(target);
  }, { rootMargin: "800px" });
  figures.forEach((figure) => near.observe(figure));

  // On a narrow window the contents would push everything else down.
  if (innerWidth < 1320) document.querySelector(".contents details").open = false;

  // A link into a closed fold opens it.
  addEventListener("hashchange", () => {
    for (let at = document.querySelector(`[id="${CSS.escape(location.hash.slice(1))}"]`); at; at = at.parentElement) {
      if (at.tagName === "DETAILS") at.open = true;
    }
  });
})();
