"use strict";
const view = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const state = { panel: 0, layer: 0, head: -1, query: 0, rolled: false, cls: 0 };

function el(tag, cls, text) {
  const made = document.createElement(tag);
  if (cls) made.className = cls;
  if (text !== undefined) made.textContent = text;
  return made;
}
function button(text, pressed, act, title) {
  const made = el("button", "", text);
  made.setAttribute("aria-pressed", pressed);
  if (title) made.title = title;
  made.onclick = act;
  return made;
}
function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

// Weights are bytes: 255 times their roots.
function bytes(text) {
  const raw = atob(text), made = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i++) { const root = raw.charCodeAt(i) / 255; made[i] = root * root; }
  return made;
}
for (const panel of view.panels) {
  panel.layers = panel.layers.map((one) => one && { heads: one.heads, weights: bytes(one.weights) });
  if (panel.rollout) panel.rollout = bytes(panel.rollout);
}
const shown = () => view.panels[state.panel];
const side = (name) => view.sides[shown()[name]];

/** The chosen map, of one head or the mean of all, queries by keys. */
function chosen() {
  return state.rolled && shown().rollout ? shown().rollout : chosenOf(shown(), state.layer, state.head);
}
function chosenOf(panel, layer, head) {
  const one = panel.layers[layer], size = panel.shape[0] * panel.shape[1];
  if (head >= 0) return one.weights.subarray(head * size, (head + 1) * size);
  const mean = new Float32Array(size);
  for (let h = 0; h < one.heads; h++)
    for (let i = 0; i < size; i++) mean[i] += one.weights[h * size + i] / one.heads;
  return mean;
}
function row(weights, query) {
  const keys = shown().shape[1];
  return weights.subarray(query * keys, (query + 1) * keys);
}
function label(one, i) {
  const token = one.tokens[i];
  if (typeof token === "string") return token;
  if (one.named) return one.named[token];
  return `row ${Math.floor(token / one.grid[1]) + 1}, column ${(token % one.grid[1]) + 1}`;
}

// --- Sides: words, and a picture ---

const pictures = new Map();
function picture(one, then) {
  const known = pictures.get(one);
  if (known) return known.complete ? then(known) : known.addEventListener("load", () => then(known));
  const made = new Image();
  pictures.set(one, made);
  made.addEventListener("load", () => then(made));
  made.src = one.picture;
}

/** Draws words and picture of a side. `asks`: what happens as the pointer is over a token. */
function drawSide(into, one, values, query, asks) {
  const box = el("div", "side" + (asks ? " asks" : ""));
  box.append(el("h2", "", one.name));
  const most = Math.max(1e-9, ...(values || [0]));
  const line = el("div", "words");
  one.tokens.forEach((token, i) => {
    if (typeof token !== "string") return;
    const word = el("span", "word" + (i === query ? " query" : ""), token);
    if (/^[<[].*[>\]]$/.test(token)) word.classList.add("special");
    if (values) {
      const share = values[i] / most;
      word.style.setProperty("--heat", Math.round(share * 100) + "%");
      if (share > 0.55) word.classList.add("hot");
      word.append(el("small", "", values[i] < 0.005 ? "\u00a0" : values[i].toFixed(2).replace(/^0/, "")));
    }
    if (asks) { word.onmouseenter = () => asks(i); word.onclick = () => asks(i); }
    line.append(word);
  });
  if (line.childElementCount) box.append(line);
  if (one.picture) box.append(drawPicture(one, values, most, query, asks));
  into.append(box);
}

function drawPicture(one, values, most, query, asks) {
  const holder = el("div", "pixels"), canvas = el("canvas");
  const [width, height] = one.size, strip = one.grid[0] === 1, scale = (strip ? 860 : 400) / Math.max(width, height);
  const w = (canvas.width = Math.round(width * scale)), h = (canvas.height = Math.round(height * scale));
  const [rows, columns] = one.grid, [down, across] = one.covers;
  const cw = (w * across) / columns, ch = (h * down) / rows;
  const at = new Map(one.tokens.map((token, i) => [token, i]));
  picture(one, (image) => {
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = scale < 1.5;
    pen.drawImage(image, 0, 0, w, h);
    const cells = values ? Math.max(1e-9, ...one.tokens.map((t, i) => (typeof t === "number" ? values[i] : 0))) : 1;
    const dark = values ? Math.min(1, cells / (most * 0.02)) : 0;
    if (values)
      for (let c = 0; c < rows * columns; c++) {
        const x = Math.round((c % columns) * cw), y = Math.round(Math.floor(c / columns) * ch);
        const share = (values[at.get(c)] / cells) * dark;
        pen.fillStyle = `rgba(12, 14, 20, ${0.78 * (1 - Math.sqrt(share))})`;
        pen.fillRect(x, y, Math.round(((c % columns) + 1) * cw) - x, Math.round((Math.floor(c / columns) + 1) * ch) - y);
      }
    if (typeof one.tokens[query] === "number") {
      const c = one.tokens[query];
      pen.strokeStyle = colour("--warm"); pen.lineWidth = 3;
      pen.strokeRect((c % columns) * cw + 1.5, Math.floor(c / columns) * ch + 1.5, cw - 3, ch - 3);
    }
    drawBoxes(pen, w, h);
  });
  canvas.onmousemove = (event) => {
    const place = canvas.getBoundingClientRect();
    const x = (event.clientX - place.left) / place.width, y = (event.clientY - place.top) / place.height;
    if (shown().queries !== view.sides.indexOf(one)) return askBox(x, y);
    const c = Math.min(rows - 1, Math.floor((y / down) * rows)) * columns + Math.min(columns - 1, Math.floor((x / across) * columns));
    if (asks && at.get(c) !== query) asks(at.get(c));
  };
  holder.append(canvas);
  return holder;
}

function drawBoxes(pen, w, h) {
  const over = view.boxes.length && shown().queries === 0;
  if (!over) return;
  for (const found of view.boxes) {
    const [l, t, r, b] = found.box, on = found.row === state.query;
    pen.strokeStyle = on ? colour("--warm") : "rgba(255, 255, 255, 0.75)";
    pen.lineWidth = on ? 3 : 1;
    pen.strokeRect(l * w, t * h, (r - l) * w, (b - t) * h);
  }
}
function askBox(x, y) {
  const inside = view.boxes.filter(({ box: [l, t, r, b] }) => l <= x && x <= r && t <= y && y <= b);
  inside.sort((p, q) => area(p) - area(q));
  if (inside.length && inside[0].row !== state.query) { state.query = inside[0].row; draw(); }
}
const area = ({ box: [l, t, r, b] }) => (r - l) * (b - t);

// --- The matrix ---

const cell = { left: 0, top: 0, size: 0 };
function drawMatrix(weights) {
  const [queries, keys] = shown().shape, asking = side("queries"), read = side("keys");
  const canvas = $("matrix"), pen = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
  const named = (one) => one.tokens.length <= 90 && one.tokens.every((t) => typeof t === "string");
  const rows = named(asking), columns = named(read);
  cell.size = Math.max(2, Math.min(26, Math.floor(900 / Math.max(keys, queries))));
  pen.font = "12px system-ui, sans-serif";
  const room = (one) => Math.max(...one.tokens.map((t) => pen.measureText(t).width)) + 12;
  cell.left = rows ? room(asking) : 6;
  cell.top = columns ? room(read) * 0.75 + 10 : 6;
  const slant = columns ? room(read) * 0.75 : 0;
  const width = cell.left + keys * cell.size + slant + 4, height = cell.top + queries * cell.size + 4;
  canvas.width = width * ratio; canvas.height = height * ratio;
  canvas.style.width = width + "px"; canvas.style.height = height + "px";
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = `${Math.min(12, cell.size)}px system-ui, sans-serif`;
  const ink = colour("--ink"), accent = colour("--accent");
  pen.fillStyle = ink; pen.textBaseline = "middle";
  for (let i = 0; rows && i < queries; i++) {
    pen.textAlign = "right"; pen.fillStyle = i === state.query ? colour("--warm") : ink;
    pen.fillText(asking.tokens[i], cell.left - 6, cell.top + (i + 0.5) * cell.size);
  }
  pen.fillStyle = ink;
  for (let j = 0; columns && j < keys; j++) {
    pen.save(); pen.translate(cell.left + (j + 0.5) * cell.size, cell.top - 6); pen.rotate(-Math.PI / 4);
    pen.textAlign = "left"; pen.fillText(read.tokens[j], 0, 0); pen.restore();
  }
  const gap = cell.size > 8 ? 1 : 0;
  let most = 1e-9;
  for (const weight of weights) most = Math.max(most, weight);
  for (let i = 0; i < queries; i++)
    for (let j = 0; j < keys; j++) {
      const x = cell.left + j * cell.size, y = cell.top + i * cell.size;
      pen.globalAlpha = 0.06; pen.fillStyle = ink; pen.fillRect(x, y, cell.size - gap, cell.size - gap);
      pen.globalAlpha = Math.sqrt(weights[i * keys + j] / most); pen.fillStyle = accent;
      pen.fillRect(x, y, cell.size - gap, cell.size - gap);
    }
  pen.globalAlpha = 1; pen.strokeStyle = colour("--warm"); pen.lineWidth = 1.5;
  pen.strokeRect(cell.left - 0.75, cell.top + state.query * cell.size - 0.75, keys * cell.size + 0.5, cell.size + 0.5);
}
$("matrix").onmousemove = (event) => {
  const place = $("matrix").getBoundingClientRect(), [queries, keys] = shown().shape;
  const i = Math.floor((event.clientY - place.top - cell.top) / cell.size);
  const j = Math.floor((event.clientX - place.left - cell.left) / cell.size);
  if (i < 0 || j < 0 || i >= queries || j >= keys) return;
  const weight = chosen()[i * keys + j];
  $("matrix").title = `${label(side("queries"), i)} \u2192 ${label(side("keys"), j)}: ${weight.toFixed(3)}`;
  if (i !== state.query) { state.query = i; draw(); }
};

// --- All heads ---

function drawGrid() {
  const panel = shown(), grid = $("grid"), [queries, keys] = panel.shape, seen = side("keys").grid;
  const heads = Math.max(...panel.layers.map((one) => (one ? one.heads : 0)));
  const room = $("all").clientWidth - 120;
  const width = Math.max(34, Math.min(120, Math.floor(room / heads) - 6));
  const tall = seen ? seen[0] / seen[1] : queries / keys;
  grid.replaceChildren();
  grid.style.gridTemplateColumns = `auto repeat(${heads}, auto)`;
  grid.append(el("span", "tag"));
  for (let h = 0; h < heads; h++) grid.append(el("span", "tag", width > 50 ? `head ${h + 1}` : String(h + 1)));
  panel.layers.forEach((one, layer) => {
    const tag = el("span", "tag", `layer ${layer + 1}`);
    grid.append(tag);
    if (!one) { tag.style.gridColumn = "1 / -1"; tag.textContent += ": no attention"; return; }
    for (let h = 0; h < heads; h++) {
      const canvas = el("canvas");
      canvas.style.width = width + "px";
      canvas.style.height = Math.max(14, Math.round(width * Math.min(1.4, tall))) + "px";
      canvas.title = `layer ${layer + 1}, head ${h + 1}: ${panel.entropy[layer][h].toFixed(2)} bits`;
      canvas.onclick = () => { Object.assign(state, { layer, head: h, rolled: false }); draw(); };
      canvas.dataset.layer = layer; canvas.dataset.head = h;
      if (!seen) paint(canvas, chosenOf(panel, layer, h), queries, keys);
      grid.append(canvas);
    }
  });
  $("all-note").textContent = (panel.turned ? "By which parts the chosen word is read." : seen ? "Where the chosen query looks." : "A row is who asks, a column who is read.") +
    " Hold the pointer over one for its entropy: 0 bits is a single place. A click chooses it.";
}
/** Marks the chosen heads; over a picture each shows what the chosen query reads. */
function markGrid() {
  const panel = shown(), one = side("keys");
  for (const canvas of $("grid").querySelectorAll("canvas")) {
    const layer = Number(canvas.dataset.layer), head = Number(canvas.dataset.head);
    canvas.classList.toggle("on", !state.rolled && layer === state.layer && (state.head < 0 || head === state.head));
    if (!one.grid) continue;
    const values = row(chosenOf(panel, layer, head), state.query), cells = new Float32Array(one.grid[0] * one.grid[1]);
    one.tokens.forEach((token, i) => { if (typeof token === "number") cells[token] = values[i]; });
    paint(canvas, cells, ...one.grid);
  }
}
function paint(canvas, weights, height, width) {
  canvas.height = height; canvas.width = width;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour("--accent"); pen.fillRect(0, 0, 1, 1);
  const [r, g, b] = pen.getImageData(0, 0, 1, 1).data, image = pen.createImageData(width, height);
  let most = 1e-9;
  for (const weight of weights) most = Math.max(most, weight);
  weights.forEach((weight, i) => image.data.set([r, g, b, 255 * Math.sqrt(weight / most)], 4 * i));
  pen.putImageData(image, 0, 0);
}

// --- Relevance and lens ---

function drawRelevance() {
  const found = view.relevance[state.cls];
  $("classes").replaceChildren(el("span", "", view.relevance[0].score === null ? "what speaks" : "class"), ...view.relevance.map((one, i) =>
    button(one.score === null ? one.class : `${one.class} ${one.score.toFixed(2)}`, i === state.cls, () => { state.cls = i; drawRelevance(); })));
  $("told").replaceChildren();
  drawSide($("told"), view.sides[found.side ?? 0], found.values, -1, null);
}
function drawLens() {
  const lens = view.lens, one = view.sides[lens.side], table = el("table"), head = el("tr");
  head.append(el("th", "", lens.wrote ? "wrote" : "reads"), ...one.tokens.map((t, i) => el("th", "", typeof t === "string" ? t : "\u25a6")));
  table.append(head);
  lens.words.forEach((layer, l) => {
    const line = el("tr");
    line.append(el("th", "", l === 0 ? "embedding" : `layer ${l}`));
    layer.forEach((best, i) => {
      const chance = lens.scores[l][i][0], made = el("td", chance > 0.55 ? "hot" : "", best[0]);
      made.style.setProperty("--heat", Math.round(chance * 100) + "%");
      made.title = best.map((word, k) => `${word}  ${lens.scores[l][i][k].toFixed(3)}`).join("\n");
      line.append(made);
    });
    table.append(line);
  });
  $("lens-table").append(table);
  $("lens-note").textContent = "Each place's likeliest word, if the head read what leaves that layer: the darker, the surer. " +
    "The last line is the model's own answer. Hold the pointer over one for the next likeliest.";
}

// --- All of it ---

function tabs(open) {
  const names = [
    ...view.panels.map((panel, i) => [panel.name, () => show(i)]),
    ...(view.relevance.length ? [["relevance", () => show("relevance")]] : []),
    ...(view.lens ? [["logit lens", () => show("lens")]] : []),
  ];
  const at = typeof open === "number" ? open : names.findIndex(([name]) => name === (open === "lens" ? "logit lens" : open));
  $("tabs").replaceChildren(...names.map(([name, act], i) => button(name, i === at, act)));
}
function show(what) {
  for (const id of ["maps", "matrix-card", "all"]) $(id).hidden = typeof what !== "number";
  for (const id of ["relevance", "lens"]) $(id).hidden = what !== id;
  tabs(what);
  if (what === "relevance") return drawRelevance();
  if (what === "lens") return;
  const asked = shown().queries;
  state.panel = what;
  const panel = shown(), layers = panel.layers;
  if (!layers[state.layer]) state.layer = layers.findLastIndex((one) => one);
  state.head = Math.min(state.head, layers[state.layer].heads - 1);
  // Panels of one side that asks are compared with each other: who asks stays.
  if (panel.queries !== asked || !state.ready) state.query = firstQuery(panel);
  state.ready = true;
  if (!panel.rollout) state.rolled = false;
  $("layer").max = layers.length - 1;
  draw();
  drawGrid();
  markGrid();
}
function firstQuery(panel) {
  const tokens = view.sides[panel.queries].tokens;
  if (view.boxes.length && panel.queries === 0) return 0;
  const words = tokens.map((t, i) => [t, i]).filter(([t]) => typeof t === "string" && !/^[<[].*[>\]]$/.test(t));
  if (words.length) return words[Math.floor(words.length / 2)][1];
  return typeof tokens[0] === "string" ? 0 : Math.floor(tokens.length / 2);
}
function draw() {
  const panel = shown(), weights = chosen(), values = row(weights, state.query);
  const heads = panel.layers[state.layer].heads;
  $("layer").value = state.layer;
  $("layer").disabled = state.rolled;
  $("layer-name").textContent = state.rolled ? "all" : `${state.layer + 1} of ${panel.layers.length}`;
  $("rollout").hidden = !panel.rollout;
  $("rollout").setAttribute("aria-pressed", state.rolled);
  $("heads").hidden = state.rolled;
  $("heads").replaceChildren(el("span", "", "head"),
    button("mean", state.head < 0, () => { state.head = -1; draw(); }),
    ...Array.from({ length: heads }, (_, h) => button(String(h + 1), h === state.head,
      () => { state.head = h; draw(); }, `entropy ${panel.entropy[state.layer][h].toFixed(2)} bits`)));
  const ask = (i) => { if (i !== state.query) { state.query = i; draw(); } };
  $("sides").replaceChildren();
  if (panel.queries === panel.keys) drawSide($("sides"), side("queries"), values, state.query, ask);
  else {
    drawSide($("sides"), side("queries"), null, state.query, ask);
    drawSide($("sides"), side("keys"), values, -1, null);
  }
  $("hint").textContent = `${label(side("queries"), state.query)} ${panel.turned ? "is read by" : "attends to"} what is lit; hold the pointer over another.`;
  $("matrix-name").textContent = `${panel.name}: ${state.rolled ? "rollout" : `layer ${state.layer + 1}, ${state.head < 0 ? "mean of all heads" : "head " + (state.head + 1)}`}`;
  $("matrix-card").hidden = Boolean(view.sides[panel.keys].grid);
  if (!$("matrix-card").hidden) drawMatrix(weights);
  markGrid();
}
$("layer").oninput = () => {
  const wanted = Number($("layer").value);
  if (shown().layers[wanted]) state.layer = wanted;
  state.head = Math.min(state.head, shown().layers[state.layer].heads - 1);
  draw();
};
$("rollout").onclick = () => { state.rolled = !state.rolled; draw(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { draw(); drawGrid(); markGrid(); });
$("what").textContent = view.said;
view.answer.forEach((line, i) => { if (i) $("answer").append(" \u00b7 "); $("answer").append(el("b", "", line)); });
if (view.lens) drawLens();
Object.assign(state, view.begin);
// look.html#lens, #relevance or #1, the second panel, opens with it.
const asked = location.hash.slice(1), number = asked === "" ? NaN : Number(asked);
if (number in view.panels) show(number);
else if ((asked === "lens" && view.lens) || (asked === "relevance" && view.relevance.length)) show(asked);
else show(view.open);
