// What answers look like.

export class Wrong extends Error {}

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made[key] = value;
    else if (key === "style") for (const [property, given] of Object.entries(value)) made.style.setProperty(property, given);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const percent = (value) => value == null ? "" : `${(100 * value).toFixed(1)} %`;
const tint = (i) => `hsl(${(i * 222.5 + 10) % 360} 65% 42%)`;
// The colour of each name, the same for a model's label in every answer.
const tints = (names, labels) => Object.fromEntries([...new Set([...labels, ...names])].map((name, i) => [name, tint(i)]));
const texts = (rows) => rows.map((row) => el("p", { class: "text" }, row || "(nothing)"));

// Names with bars of what each is worth, 0..1.
function bars(pairs, most = 8) {
  return pairs.slice(0, most).map(([name, value]) => el("div", { class: "bar" },
    el("span", {}, name),
    el("i", {}, el("b", { style: { width: `${100 * Math.max(0, Math.min(1, value))}%` } })),
    el("output", {}, percent(value))));
}

// Classes of a series, numbers by target, or the steps that follow.
function ofSeries([found]) {
  if (!found.numbers) return classes([found]);
  const said = (value) => value == null ? "—" : String(Number(value.toPrecision(5)));
  return Object.entries(found.numbers).map(([name, value]) => Array.isArray(value)
    ? el("div", {}, el("h3", {}, `${name}, the next ${value.length}`),
      el("ol", { class: "steps" }, ...value.map((one) => el("li", {}, said(one)))))
    : el("p", { class: "text" }, `${name} ${said(value)}`));
}

function legend(pairs) {
  return el("div", { class: "legend" }, ...pairs.map(([name, colour]) => el("span", { style: { "--tint": colour } }, name)));
}

function classes([found]) {
  if (typeof found === "number") return [el("p", { class: "text" }, found.toFixed(3))];
  const rows = Object.entries(found.probabilities).sort((a, b) => b[1] - a[1]);
  return rows.length ? bars(rows) : texts([found.label]);
}

// A text with spans of it coloured.
function marked(text, spans, labels = []) {
  const colours = tints(spans.map((span) => span.label), labels), parts = [];
  let at = 0;
  for (const { label, start, end, score } of spans) {
    parts.push(text.slice(at, start), el("mark", { style: { "--tint": colours[label] }, title: percent(score) },
      text.slice(start, end), label ? el("small", {}, label) : ""));
    at = end;
  }
  return el("p", { class: "text" }, ...parts, text.slice(at));
}

function gaps([rows]) {
  return rows.flatMap((row, i) => [
    ...(rows.length > 1 ? [el("h3", {}, `Gap ${i + 1}`)] : []),
    ...bars(row.map(({ token, score }) => [token, score])),
  ]);
}

function spanOf([found], { context }) {
  if (found.start == null) return [el("p", { class: "text" }, "The text does not say.")];
  return [
    el("p", { class: "text" }, found.answer, " ", el("small", {}, percent(found.score))),
    marked(context, [{ ...found, label: "" }]),
  ];
}

// A picture as large as the page has room for, with whole pixels where it is small.
function picture(url, alt) {
  const made = el("img", { src: url, alt });
  made.onload = () => made.classList.toggle("sharp", made.naturalWidth < 200);
  return made;
}

function boxes([found], { pictures }, { labels }) {
  const colours = tints(found.map((one) => one.label), labels);
  const canvas = el("canvas", { role: "img", "aria-label": found.map((one) => `${one.label} at ${one.box.map(Math.round)}`).join("; ") || "nothing found" });
  const image = new Image();
  image.onload = () => {
    const scale = Math.max(1, Math.round(1088 / image.naturalWidth)), pen = canvas.getContext("2d");
    canvas.width = image.naturalWidth * scale;
    canvas.height = image.naturalHeight * scale;
    pen.imageSmoothingEnabled = image.naturalWidth >= 200;
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    const unit = canvas.width / 544;
    pen.font = `600 ${13 * unit}px system-ui, sans-serif`;
    pen.lineWidth = 2.5 * unit;
    for (const { label, score, box } of found) {
      const [left, top, right, bottom] = box.map((side) => side * scale);
      const name = `${label} ${score.toFixed(2)}`, wide = pen.measureText(name).width + 8 * unit;
      pen.strokeStyle = pen.fillStyle = colours[label];
      pen.strokeRect(left, top, right - left, bottom - top);
      const above = Math.max(0, top - 19 * unit), beside = Math.min(left - pen.lineWidth / 2, canvas.width - wide);
      pen.fillRect(beside, above, wide, 19 * unit);
      pen.fillStyle = "#fff";
      pen.fillText(name, beside + 4 * unit, above + 14 * unit);
    }
  };
  image.src = pictures[0];
  return [el("div", { class: "stage" }, canvas), found.length
    ? legend(found.map(({ label, score }) => [`${label} ${score.toFixed(2)}`, colours[label]]))
    : el("p", { class: "small" }, "Nothing was found: a lower least score shows more.")];
}

function masks([found], { pictures }) {
  const over = picture(found.overlay, "the classes of the pixels");
  over.style.opacity = 0.6;
  const slide = el("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.6, "aria-label": "Opacity of the classes" });
  slide.oninput = () => { over.style.opacity = slide.value; };
  return [
    el("div", { class: "stage" }, picture(pictures[0], "your picture"), over), slide,
    legend(found.classes.map(({ label, share, color }) => [`${label} ${percent(share)}`, color])),
    ...objects(found, over),
  ];
}

// Objects by name; the one under the pointer or in focus alone is lit.
function objects({ objects: some, overlay }, over) {
  if (!some?.length) return [];
  const lit = (url) => { over.src = url; over.classList.toggle("lit", url !== overlay); };
  return [el("h3", {}, "Objects: point at one"), el("div", { class: "tokens" }, ...some.map(({ label, score, mask }) => el("span", {
    tabindex: 0, onmouseenter: () => lit(mask), onfocus: () => lit(mask), onmouseleave: () => lit(overlay), onblur: () => lit(overlay),
  }, `${label} ${score.toFixed(2)}`)))];
}

function ranked(found, { text, pictures }) {
  if (pictures) return [el("div", { class: "grid" }, ...found.map(({ index, similarity }, i) => el("figure", {},
    picture(pictures[index], `picture ${index + 1}`), el("figcaption", {}, `${i + 1}. ${similarity.toFixed(3)}`))))];
  const lines = text.split("\n").map((line) => line.trim()).filter(Boolean);
  return [el("ol", { class: "ranked" }, ...found.map(({ index, similarity }) =>
    el("li", {}, lines[index], " ", el("small", {}, similarity.toFixed(3)))))];
}

// How near texts are to each other, and the first numbers of each.
function vectors(rows) {
  const length = (row) => Math.hypot(...row) || 1;
  const near = rows.map((a) => rows.map((b) => a.reduce((sum, x, i) => sum + x * b[i], 0) / length(a) / length(b)));
  return [
    ...(rows.length > 1 ? [el("h3", {}, "Cosine similarity"), grid(near, rows.map((_, i) => `${i + 1}`), rows.map((_, i) => `${i + 1}`), true)] : []),
    ...rows.map((row, i) => el("p", { class: "small" }, `${i + 1}. ${row.length} numbers: ${row.slice(0, 6).map((x) => x.toFixed(3)).join(", ")} …`)),
  ];
}

function drawn([made], { text }) {
  return [el("div", { class: "grid" }, ...made.map((url) => picture(url, text ?? "the picture made again")))];
}

const SHOW = {
  translate: texts, caption: texts, classify: classes, fill: gaps, answer: spanOf, detect: boxes, segment: masks,
  series: ofSeries, search: ranked, embed: vectors, draw: drawn, reconstruct: drawn,
  tag: ([spans], { text }, { labels }) => [marked(text, spans, [...new Set(labels.map((label) => label.replace(/^[BIES]-/, "")))])],
  ask: (found) => found.map(({ answer, score }) => el("p", { class: "text" }, answer, " ", el("small", {}, percent(score)))),
  reward: ([value]) => [el("p", { class: "text" }, value.toFixed(3))],
};

export const show = (action, found, values, model) => SHOW[action](found, values, model);

// --- Attention ---

const heat = (value) => `rgba(var(--heat), ${Math.min(1, value).toFixed(3)})`;

// Numbers as colours, the greatest the darkest.
function grid(weights, rows, columns, numbers = false) {
  const most = Math.max(...weights.flat(), 1e-9);
  return el("div", { class: "scroll" }, el("table", { class: "map" },
    el("thead", {}, el("tr", {}, el("td"), ...columns.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, ...rows.map((name, i) => el("tr", {}, el("th", { scope: "row" }, name),
      ...weights[i].map((value, j) => el("td", { style: { background: heat(value / most) }, title: `${name} → ${columns[j]}: ${value.toFixed(3)}` },
        numbers ? value.toFixed(2) : "")))))));
}

// Tokens; from the one under the pointer or in focus, how much it attends to each of the others.
export function showAttention({ rows, columns, weights }, crosses) {
  const row = (tokens) => tokens.map((token) => el("span", {}, token));
  [rows, columns] = [rows, columns].map((tokens) => tokens.map((token) => token.trim() || "␣"));
  const from = row(rows), to = crosses ? row(columns) : from;
  const choose = (i) => {
    const most = Math.max(...weights[i], 1e-9);
    to.forEach((token, j) => { token.style.background = heat(0.85 * weights[i][j] / most); token.title = percent(weights[i][j]); });
    from.forEach((token, j) => token.classList.toggle("chosen", j === i));
  };
  from.forEach((token, i) => {
    token.tabIndex = 0;
    token.onmouseenter = token.onfocus = () => choose(i);
    token.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { event.preventDefault(); from[i + step]?.focus(); }
    };
  });
  choose(0);
  return [
    el("h3", {}, crosses ? "Where the translation looks: point at one of its words" : "Where each word looks: point at one"),
    el("div", { class: "tokens" }, ...from),
    ...(crosses ? [el("div", { class: "tokens" }, ...to)] : []),
    ...(rows.length <= 40 && columns.length <= 40 ? [grid(weights, rows, columns)] : []),
  ];
}
