"use strict";
const parse = (id) => JSON.parse(document.getElementById(id).textContent);
const all = (selector, of = document) => [...of.querySelectorAll(selector)];

// Charts are drawn when they come near the window, and again where their box changes its width.
const specs = parse("charts"), look = { ...parse("charts-config"), font: getComputedStyle(document.body).fontFamily }, views = {};
const withoutLegends = (spec) => Object.fromEntries(Object.entries(spec).map(([name, value]) =>
  [name, name === "legend" ? null : value && typeof value === "object" && !Array.isArray(value) && name !== "data" ? withoutLegends(value)
    : name === "layer" ? value.map(withoutLegends) : value]));
async function draw(figure) {
  const spec = structuredClone(specs[figure.id.slice(6)]);
  if (!spec || !figure.clientWidth) return;
  figure.dataset.width = figure.clientWidth;
  const found = await vegaEmbed(figure, keyed(figure) || figure.nextElementSibling?.matches(".key-list") ? withoutLegends(spec) : spec, { mode: "vega-lite", config: look, renderer: "svg", actions: false });
  views[figure.id.slice(6)] = found.view;
  figure.dispatchEvent(new CustomEvent("drawn", { bubbles: true }));
}
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "400px" });
all(".chart").forEach((figure) => near.observe(figure));
let moved = false;
["wheel", "touchmove", "keydown", "pointerdown"].forEach((name) => addEventListener(name, () => { moved = true; }, { once: true, passive: true }));
addEventListener("load", () => setTimeout(async () => {  // all of them at leisure, for print and search
  for (const figure of all(".chart")) if (!figure.dataset.width) { near.unobserve(figure); await draw(figure); if (!figure.dataset.width) near.observe(figure); }
  if (!moved && location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();  // charts have moved what it names
}, 300));

// The keys below a heading are the legend of its charts: they choose the methods, and a list the target.
const keyed = (figure) => figure.closest("section")?.querySelector(".keys");
function choose(figure) {
  const keys = keyed(figure), view = views[figure.id.slice(6)];
  if (!keys || !view) return;
  view.signal("shown", all("input:checked", keys).map((input) => input.value));
  view.signal("target", figure.closest("section").querySelector(".chart-target").value);
  view.runAsync();
}
document.addEventListener("change", (event) => {
  if (event.target.matches(".chart-method, .chart-target")) all(".chart", event.target.closest("section")).forEach(choose);
});
document.addEventListener("drawn", (event) => choose(event.target));

// Maps of embeddings are coloured by emotion or by corpus; drawn anew, since the legend's height changes.
document.querySelector(".map-colours")?.addEventListener("change", (event) => {
  for (const figure of all("[id^=chart-embeddings-]")) {
    specs[figure.id.slice(6)].params[0].value = event.target.value;
    if (figure.dataset.width) draw(figure);
  }
});

// Tables: a heading sorts its column, first the highest; again turns it round.
for (const table of all("table.sortable")) {
  const headings = all("thead tr:last-child th", table), body = table.tBodies[0], original = [...body.rows];
  headings.forEach((heading, column) => heading.querySelector(".sort").addEventListener("click", () => {
    const before = heading.ariaSort === "none" ? null : heading.ariaSort, first = column ? "descending" : "ascending";
    const next = !before ? first : before === first ? (column ? "ascending" : "descending") : null;
    headings.forEach((each) => each.setAttribute("aria-sort", "none"));
    if (next) heading.setAttribute("aria-sort", next);
    const sign = next === "descending" ? -1 : 1;
    const value = (row) => column ? row.cells[column].dataset.value : row.cells[0].textContent;
    const rows = next ? [...original].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (!column) return sign * x.localeCompare(y);
      return x === "" || y === "" ? (x === "") - (y === "") : sign * (x - y);
    }) : original;
    body.append(...rows);
  }));
}

const shortened = (text) => text.length > 60 ? `${text.slice(0, 59)}…` : text;
// Methods: few at first, all on request; a filter looks through all of them.
for (const controls of all(".controls[data-for]")) {
  const table = document.getElementById(controls.dataset.for), rows = all("tbody tr", table);
  const filter = controls.querySelector(".filter"), every = controls.querySelector(".every"), count = controls.querySelector(".count");
  const nothing = controls.closest("section").querySelector(".nothing"), clear = document.createElement("button");
  clear.type = "button";
  clear.textContent = "Clear the filter";
  clear.addEventListener("click", () => { filter.value = ""; update(); filter.focus(); });
  const update = () => {
    const words = filter.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    table.classList.toggle("all", words.length > 0 || !every || every.checked);
    rows.forEach((row) => row.classList.toggle("unmatched", !words.every((word) => row.cells[0].textContent.toLowerCase().includes(word))));
    const shown = rows.filter((row) => getComputedStyle(row).display !== "none").length;
    count.textContent = `${shown} of ${rows.length} shown`;
    table.closest(".wide").hidden = !shown;
    nothing.replaceChildren(...(shown ? [] : [`No method matches ${words.length > 1 ? "all words of " : ""}“${shortened(filter.value.trim())}”.`, clear]));
  };
  filter.addEventListener("input", update);
  every?.addEventListener("change", update);
  update();
}

// The confusion matrix of a method.
const matrix = document.getElementById("confusion");
if (matrix) {
  const data = parse("confusions"), method = document.getElementById("confusion-method"), fold = document.getElementById("confusion-fold");
  const share = (value) => Number.isNaN(value) ? "–" : value.toFixed(3).replace(/^0/, "");
  const cell = (kind, text, small) => { const made = document.createElement(kind); made.textContent = text; if (small !== undefined) { const under = document.createElement("small"); under.textContent = small; made.append(under); } return made; };
  const update = () => {
    const of = data.folds[fold.value], found = of.cells[method.value];
    matrix.replaceChildren();
    if (!found) { matrix.createCaption().textContent = "This method was not evaluated there."; return; }
    const head = matrix.createTHead().insertRow(), body = matrix.createTBody();
    ["truth", ...of.labels, "n"].forEach((label) => { const made = cell("th", label); made.scope = "col"; head.append(made); });
    found.counts.forEach((counts, truth) => {
      const row = body.insertRow(), sum = counts.reduce((a, b) => a + b, 0), name = cell("th", of.labels[truth]);
      name.scope = "row";
      row.append(name);
      counts.forEach((count, label) => {
        const made = cell("td", share(count / sum), count);
        made.style.setProperty("--share", sum ? count / sum : 0);
        made.classList.toggle("own", label === truth);
        row.append(made);
      });
      const n = cell("td", sum);
      n.className = "plain";
      row.append(n);
    });
    matrix.createCaption().textContent = `UAR ${found.uar}` + (found.seeds > 1 ? `, ${found.seeds} seeds` : "");
  };
  method.addEventListener("change", update);
  fold.addEventListener("change", update);
  update();
}

// Tables wider than their box say so, fade at the edge, and take the keyboard.
const boxes = all(".wide").map((box) => { const hint = document.createElement("p"); hint.className = "sideways"; hint.textContent = "more columns: scroll →"; hint.hidden = true; box.before(hint); return [box, hint]; });
const edges = ([box, hint]) => {
  const room = box.scrollWidth - box.clientWidth, scrolls = room > 1;
  hint.hidden = !scrolls;
  box.classList.toggle("more", room - box.scrollLeft > 1);
  box.classList.toggle("moved", box.scrollLeft > 1);
  scrolls ? box.tabIndex = 0 : box.removeAttribute("tabindex");
};
const sized = new ResizeObserver((entries) => entries.forEach(({ target }) => edges(boxes.find(([box]) => box === target || box === target.parentElement))));
for (const each of boxes) { sized.observe(each[0]); all("table", each[0]).forEach((table) => sized.observe(table)); each[0].addEventListener("scroll", () => edges(each), { passive: true }); }

// On paper, the folds that results need are open.
const unfolded = [];
const unfold = () => all("details[data-print]:not([open])").forEach((fold) => { fold.open = true; unfolded.push(fold); });
const fold = () => unfolded.splice(0).forEach((each) => { each.open = false; });
addEventListener("beforeprint", unfold);
addEventListener("afterprint", fold);
matchMedia("print").addEventListener("change", (event) => event.matches ? unfold() : fold());

// Notes in words, beside the letter, on hover and on focus; Escape hides them.
const tip = document.getElementById("tip");
let noted = null;
const hide = () => { noted = null; tip.hidden = true; };
const show = (event) => {
  noted = event.target.closest?.(".note");
  if (!noted) return hide();
  if (noted.title) { noted.dataset.note = noted.title; noted.removeAttribute("title"); }  // else the browser shows it as well
  tip.textContent = noted.dataset.note;
  tip.hidden = false;
  place();
};
const place = () => {
  if (!noted) return;
  const at = noted.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - own.width - 8))}px`;
  tip.style.top = `${at.bottom + own.height + 12 < innerHeight ? at.bottom + 6 : at.top - own.height - 6}px`;
};
document.addEventListener("mouseover", show);
document.addEventListener("focusin", show);
document.addEventListener("scroll", place, true);

// The notes of a table are one stop of the keyboard: arrows, Home and End move among those that are shown.
const notesOf = (table) => all(".note", table).filter((note) => note.offsetParent);
const stop = (table, on) => all(".note", table).forEach((note) => { note.tabIndex = note === on ? 0 : -1; });
const stops = (table) => { const shown = notesOf(table); if (shown.length && !shown.some((note) => note.tabIndex === 0)) stop(table, shown[0]); };
const moves = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
for (const table of all("table.sortable")) {
  stop(table, null);
  new ResizeObserver(() => stops(table)).observe(table);  // also where lines or folds are shown or hidden
  table.addEventListener("keydown", (event) => {
    const shown = notesOf(table), at = shown.indexOf(event.target);
    if (at < 0 || !(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = shown[Math.max(0, Math.min(at + moves[event.key], shown.length - 1))];
    stop(table, next);
    next.focus();
  });
  table.addEventListener("focusin", (event) => { if (event.target.matches(".note")) stop(table, event.target); });
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

// Charts whose <details> opens, and the section that one reads.
document.addEventListener("toggle", (event) => all(".chart", event.target).forEach((figure) => { if (!figure.dataset.width) draw(figure); }), true);
document.addEventListener("play", (event) => all("audio").forEach((other) => other === event.target || other.pause()), true);

const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => entries.forEach((entry) => {
  if (entry.isIntersecting) { links.forEach((link) => link.removeAttribute("aria-current")); links.get(entry.target.id)?.setAttribute("aria-current", "true"); }
}), { rootMargin: "-15% 0px -75%" });
all("main > section").forEach((section) => reading.observe(section));
