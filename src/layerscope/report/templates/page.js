"use strict";
(() => {
  const looks = JSON.parse(document.getElementById("looks").textContent);
  const figures = [...document.querySelectorAll("figure")];
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  // On paper figures stand two in a row.
  const printWidth = (figure) => (figure.matches(".figures > :not(.wide)") ? 330 : 676);
  // Nothing leaves this page: no button that uploads a chart.
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: innerWidth < 600 ? false : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "sendChartToCloud"],
  };

  const paper = () => root.dataset.paper || (prefersDark.matches ? "dark" : "light");

  // A figure's looks on a paper: the template, and the colour scale whose zero is the paper's colour.
  function look(layout, name) {
    const scale = layout.meta && looks[name].scales[layout.meta.scale];
    const coloured = scale ? { "coloraxis.colorscale": scale } : {};
    return { template: looks[name].template, ...coloured };
  }

  // What few will open is packed.
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  // So is plotly.js, whose hash the page's policy knows.
  const plotly = unpacked(document.getElementById("plotly").textContent).then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
  });

  function draw(figure) {
    if (figure.dataset.drawn) return;
    const source = figure.querySelector("script");
    figure.dataset.drawn = "soon";
    const plain = source.type === "application/json";
    if (plain && window.Plotly) return plot(figure, source.textContent); // at once, as printing needs it
    const text = plain ? source.textContent : unpacked(source.textContent);
    Promise.all([text, plotly]).then(([text]) => plot(figure, text)).catch((error) => failed(figure, error));
  }

  function plot(figure, text) {
    const drawing = figure.querySelector(".drawing");
    try {
      const { data, layout, menu } = JSON.parse(text);
      const { template, ...coloured } = look(layout, paper());
      layout.template = template;
      if (coloured["coloraxis.colorscale"]) layout.coloraxis.colorscale = coloured["coloraxis.colorscale"];
      const picture = { format: "svg", filename: figure.id };
      Plotly.newPlot(drawing, data, layout, { ...config, toImageButtonOptions: picture });
      if (menu.length) addMenu(figure.querySelector(".menu"), drawing, menu);
      figure.dataset.drawn = "yes";
    } catch (error) {
      failed(figure, error);
    }
  }

  function failed(figure, error) {
    figure.dataset.drawn = "failed";
    figure.querySelector(".drawing").textContent = `This figure could not be drawn: ${error.message}`;
    console.error(error);
  }

  const searched = 8;

  function addMenu(place, drawing, menu) {
    const select = document.createElement("select");
    select.setAttribute("aria-label", "Choose what is shown");
    fill(select, menu, "");
    const show = () => {
      const [data, layout] = menu[select.value].args;
      drawing.style.minHeight = `${layout.height}px`;
      Plotly.update(drawing, data, layout);
    };
    select.addEventListener("change", show);
    if (menu.length > searched) {
      const search = field("Find by its text");
      search.addEventListener("input", () => {
        fill(select, menu, search.value);
        if (select.options.length) show();
      });
      place.append(search, " ");
    }
    place.append(select);
  }

  // Entries that hold all words of a search, under their groups.
  function fill(select, menu, search) {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const groups = new Map();
    select.replaceChildren();
    menu.forEach((entry, index) => {
      const said = `${entry.group} ${entry.label}`.toLowerCase();
      if (!words.every((word) => said.includes(word))) return;
      const option = new Option(withoutGroup(entry), index);
      if (!entry.group) return void select.append(option);
      if (!groups.has(entry.group)) {
        const group = document.createElement("optgroup");
        group.label = entry.group;
        groups.set(entry.group, group);
        select.append(group);
      }
      groups.get(entry.group).append(option);
    });
  }

  function field(said) {
    const search = document.createElement("input");
    Object.assign(search, { type: "search", className: "filter", placeholder: said });
    search.setAttribute("aria-label", said);
    return search;
  }

  // The group stands above its entries here, so that it need not be said in each.
  function withoutGroup(entry) {
    const said = `${entry.group}: `;
    return entry.group && entry.label.startsWith(said) ? entry.label.slice(said.length) : entry.label;
  }

  const drawn = () => figures.filter((figure) => figure.dataset.drawn === "yes");

  function restyle(name, size = () => ({})) {
    for (const figure of drawn()) {
      const drawing = figure.querySelector(".drawing");
      Plotly.relayout(drawing, { ...look(drawing.layout, name), ...size(figure) });
    }
  }

  // Auto, light, dark, auto, ...; remembered where the browser lets a file remember.
  const button = document.getElementById("theme");
  function choose(name) {
    if (name === "auto") delete root.dataset.paper;
    else root.dataset.paper = name;
    button.textContent = `Theme: ${name}`;
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
    figures.filter((figure) => figure.checkVisibility()).forEach(draw);
    restyle("light", (figure) => ({ autosize: false, width: printWidth(figure) }));
  });
  addEventListener("afterprint", () => restyle(paper(), () => ({ autosize: true, width: null })));

  // Figures are drawn shortly before they scroll into view: a long report opens at once.
  const near = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) draw(target);
  }, { rootMargin: "800px" });
  figures.forEach((figure) => near.observe(figure));

  // Examples are unpacked when somebody opens them; what is packed is markup that this page wrote, texts escaped.
  for (const page of document.querySelectorAll("details.reading")) {
    const fill = (text) => page.insertAdjacentHTML("beforeend", text);
    const unpack = () => unpacked(page.querySelector("script").textContent).then(fill);
    page.addEventListener("toggle", unpack, { once: true });
  }

  // On a narrow window the contents would push everything else down.
  if (innerWidth < 1320) document.querySelector(".contents details").open = false;

  // A link into a closed fold opens it.
  function open() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (target) requestAnimationFrame(() => target.scrollIntoView());
  }
  addEventListener("hashchange", open);
  if (location.hash) open();

  // Contents follow the scroll: the last part that began above the middle of the window is marked.
  const links = [...document.querySelectorAll(".contents a")];
  const parts = links.map((link) => document.getElementById(link.hash.slice(1)));
  let waiting = false;
  function follow() {
    waiting = false;
    const begun = parts.findLastIndex((part) => part && part.getBoundingClientRect().top < innerHeight / 2);
    links.forEach((link, place) => {
      link.classList.toggle("here", place === begun);
      if (place === begun) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  }
  addEventListener("scroll", () => { if (!waiting) { waiting = true; requestAnimationFrame(follow); } }, { passive: true });
  follow();

  // Tables sort by a column, numbers as numbers, and longer ones are filtered by their words.
  const filtered = 6;
  const number = (text) => Number.parseFloat(text.replace("−", "-").replace(/[<,%]/g, ""));
  function sort(table, column) {
    const head = table.tHead.rows[0].cells[column];
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const said = (row) => row.cells[column].textContent.trim();
    const order = (a, b) => {
      const [x, y] = [number(said(a)), number(said(b))];
      if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
      return (up ? 1 : -1) * (Number.isNaN(x) ? said(a).localeCompare(said(b)) : x - y);
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(table, column));
      head.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(table, column); }
      });
    });
    const rows = [...table.tBodies[0].rows];
    if (rows.length <= filtered) continue;
    const search = field("Only rows with these words");
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    });
    table.parentElement.before(search);
  }
})();
