// The page: one form a model and action. What an answer looks like is in show.js.
import { showSeen } from "./seen.js";
import { el, show, showAttention, Wrong } from "./show.js";

const nav = document.querySelector("nav");
const form = document.querySelector("form");
const answer = document.querySelector("#answer");
const attention = document.querySelector("#attention");

// --- Fields ---

const text = (name, label, value = "", rows = 2) => ({ kind: "text", name, label, value, rows });
const pictures = (label, many = false) => ({ kind: "pictures", name: "pictures", label, many });
const option = (name, label, rest = {}) => ({ kind: "option", name, label, ...rest });
const number = (name, label, min, max, step = 1) => option(name, label, { min, max, step });
const DRAWING = [
  number("temperature", "Temperature", 0, 2, 0.1), number("top_p", "Top p", 0.01, 1, 0.01),
  number("max_new_tokens", "New tokens", 1, 1024), number("seed", "Seed", 0, 2 ** 31 - 1),
];

// Of each action: its button, its fields by the model, and the body of its request by their values.
const ACTIONS = {
  translate: {
    button: "Translate",
    fields: (model) => [
      text("text", model.task === "TextToText" ? "Text" : "Sentences, one a line"),
      ...(model.languages.length ? ["source", "target"].map((name) =>
        option(name, name === "source" ? "From" : "To", { choices: model.languages })) : []),
      number("beams", "Beams", 1, 8),
    ],
    body: ({ text, ...rest }) => ({ texts: lines(text), ...rest }),
  },
  generate: {
    button: "Go on",
    fields: () => [text("prompt", "Beginning of a text"), ...DRAWING],
    body: (values) => ({ ...values, stream: true }),
  },
  chat: {
    button: "Send",
    fields: () => [text("said", "Your turn"), ...DRAWING],
    body: ({ said, ...rest }) => ({ ...rest, stream: true, messages: [...turns, { role: "user", content: said }] }),
  },
  fill: {
    button: "Fill",
    fields: () => [text("text", "Text with [MASK] where something is missing", "a [MASK] circle")],
    body: ({ text }) => ({ texts: [text] }),
  },
  classify: {
    button: "Classify",
    fields: (model) => model.reads.includes("pictures") ? [pictures("Picture")]
      : model.reads.includes("clips") ? [pictures("Frames of a clip, in turn", true)]
      : [text("text", "Text"), ...(model.reads.includes("pairs") ? [text("pair", "Second text")] : [])],
    body: ({ text, pair, pictures }, model) => pictures
      ? (model.reads.includes("clips") ? { clips: [pictures] } : { pictures })
      : { texts: [text], ...(pair ? { pairs: [pair] } : {}) },
  },
  tag: { button: "Tag", fields: () => [text("text", "Text")], body: ({ text }) => ({ texts: [text] }) },
  answer: {
    button: "Answer",
    fields: () => [text("question", "Question", "", 1), text("context", "The text that it is asked of", "", 5)],
    body: ({ question, context }) => ({ questions: [question], contexts: [context] }),
  },
  detect: {
    button: "Detect",
    fields: () => [pictures("Picture"), number("threshold", "Least score", 0, 1, 0.05)],
    body: (values) => values,
  },
  segment: {
    button: "Segment",
    fields: (model) => [pictures("Picture"), ...(model.instances ? [number("threshold", "Least score", 0.05, 1, 0.05)] : [])],
    body: (values, model) => ({ ...values, instances: model.instances }),
  },
  caption: { button: "Describe", fields: () => [pictures("Picture")], body: (values) => values },
  reconstruct: { button: "Make again", fields: () => [pictures("Picture")], body: (values) => values },
  ask: {
    button: "Ask",
    fields: () => [pictures("Picture"), text("question", "Question", "", 1)],
    body: ({ pictures, question }) => ({ pictures, questions: [question] }),
  },
  search: {
    button: "Search",
    fields: (model) => [
      text("query", "What to look for", "", 1),
      model.reads.includes("pictures") ? pictures("Pictures to search in", true)
        : text("text", "Texts to search in, one a line", "", 6),
    ],
    body: ({ query, text, pictures }) => pictures ? { query, pictures } : { query, texts: lines(text) },
  },
  embed: {
    button: "Embed",
    fields: () => [text("text", "Texts, one a line", "", 4)],
    body: ({ text }) => ({ texts: lines(text) }),
  },
  draw: {
    button: "Draw",
    fields: () => [text("text", "What is to be seen"), number("num", "Pictures", 1, 8), number("seed", "Seed", 0, 2 ** 31 - 1)],
    body: ({ text, ...rest }) => ({ texts: [text], ...rest }),
  },
  series: {
    button: "Read",
    fields: (model) => [text("text", `A step a line: ${model.channels.join(", ")}; or JSON, [[…], …] or {"${model.channels[0]}": […]}`, "", 8)],
    body: ({ text }, model) => ({ series: [seriesOf(text, model.channels)] }),
  },
  reward: {
    button: "Judge",
    fields: () => [text("prompt", "Prompt"), text("answer", "Answer")],
    body: ({ prompt, answer }) => ({ prompts: [prompt], answers: [answer] }),
  },
};

// A series as it is pasted: JSON, or a table with a step a line and maybe the names of channels above.
function seriesOf(text, channels) {
  if (/^\s*[[{]/.test(text)) {
    try { return JSON.parse(text); } catch { throw new Wrong("This begins as JSON, but is none that can be read."); }
  }
  const rows = lines(text), mark = [";", "\t", ","].find((one) => rows[0].includes(one)) ?? ",";
  const cells = rows.map((row) => row.split(mark).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1")));
  const numbers = (row, first) => row.map((cell) => {
    const value = /^(nan|na|null|none)?$/i.test(cell) ? null : Number(cell);
    if (Number.isNaN(value)) throw new Wrong(`Line ${first} has ${cell}, which is no number.`);
    return value;
  });
  const named = cells[0].some((cell) => channels.includes(cell));
  if (!named) return cells.map((row, i) => numbers(row, i + 1));
  const name = cells[0].findIndex((cell) => ["series", "series_id", "unique_id", "item_id", "id"].includes(cell) && !channels.includes(cell));
  const count = new Set(name < 0 ? [] : cells.slice(1).map((row) => row[name])).size;
  if (count > 1) throw new Wrong(`The table has ${count} series: give the lines of one.`);
  if (cells.length < 2) throw new Wrong("There is no step below the names of the channels.");
  const places = channels.filter((name) => cells[0].includes(name)).map((name) => [name, cells[0].indexOf(name)]);
  return Object.fromEntries(places.map(([name, place]) =>
    [name, cells.slice(1).map((row, i) => numbers([row[place] ?? ""], i + 2)[0])]));
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

// --- The form ---

let models = [], model, action, turns = [], running, dropped = [];

function choose() {
  const [name, wanted] = location.hash.slice(1).split("/").map(decodeURIComponent);
  model = models.find((one) => one.name === name) ?? models[0];
  action = model.actions.includes(wanted) ? wanted : model.actions[0];
  for (const link of nav.children) {
    link.toggleAttribute("aria-current", false);
    if (link.dataset.model === model.name && link.dataset.action === action) link.setAttribute("aria-current", "page");
  }
  turns = []; dropped = [];
  running?.abort();
  answer.replaceChildren(); attention.replaceChildren();
  fillForm();
}

function fillForm() {
  const fields = ACTIONS[action].fields(model);
  const options = fields.filter((one) => one.kind === "option");
  const send = el("button", { type: "submit" }, ACTIONS[action].button);
  const again = el("button", { type: "button", class: "plain", onclick: choose }, "New conversation");
  form.replaceChildren(
    ...fields.filter((one) => one.kind !== "option").map((one) => one.kind === "text" ? textField(one) : pictureField(one)),
    ...(options.length ? [el("details", {}, el("summary", {}, "Options"), el("div", { class: "options" }, ...options.map(optionField)))] : []),
    el("div", { class: "actions" }, send, ...(action === "chat" ? [again] : []),
      el("span", { class: "small" }, action === "chat" ? "Enter sends" : "Ctrl + Enter")),
  );
  form.querySelector("textarea")?.focus();
}

function textField({ name, label, value, rows }) {
  const area = el("textarea", { id: name, name, rows, required: "" });
  area.value = value;
  return el("div", {}, el("label", { for: name }, label), area);
}

function optionField({ name, label, choices, ...rest }) {
  const usual = "as the model says";
  const input = choices
    ? el("select", { id: name, name }, el("option", { value: "" }, "—"), ...choices.map((one) => el("option", {}, one)))
    : el("input", { id: name, name, type: "number", placeholder: usual, title: usual, ...rest });
  return el("div", {}, el("label", { for: name }, label), input);
}

function pictureField({ label, many }) {
  const input = el("input", { type: "file", accept: "image/*", id: "pictures", ...(many ? { multiple: "" } : {}) });
  const thumbs = el("div", { class: "thumbs" });
  const take = async (files) => {
    const urls = await Promise.all([...files].filter((file) => file.type.startsWith("image/")).map(read));
    if (urls.length) dropped = many ? [...dropped, ...urls] : urls.slice(0, 1);
    thumbs.replaceChildren(...dropped.map((url) => el("img", { src: url, alt: "your picture" })));
  };
  input.onchange = () => { take(input.files); input.value = ""; };
  const area = el("label", { class: "drop", for: "pictures" }, input,
    many ? "Drop pictures here, paste them, or choose files" : "Drop a picture here, paste it, or choose a file", thumbs);
  area.ondragover = (event) => { event.preventDefault(); area.classList.add("over"); };
  area.ondragleave = () => area.classList.remove("over");
  area.ondrop = (event) => { event.preventDefault(); area.classList.remove("over"); take(event.dataTransfer.files); };
  document.onpaste = (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); };
  return el("div", {}, el("label", { for: "pictures" }, label), area);
}

const read = (file) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => failed(new Wrong("the file cannot be read."));
  reader.readAsDataURL(file);
});

function valuesOf() {
  const values = {};
  for (const field of form.querySelectorAll("textarea, input[name], select")) {
    const given = field.value;
    if (field.tagName === "TEXTAREA" && !given.trim()) {
      field.focus();
      throw new Wrong("Write something first.");
    }
    if (given !== "") values[field.name] = field.type === "number" ? Number(given) : given;
  }
  if (form.querySelector("#pictures")) {
    if (!dropped.length) throw new Wrong("Drop a picture first.");
    values.pictures = dropped;
  }
  return values;
}

// --- Requests ---

async function ask(path, body, signal) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Wrong("The server does not answer: is it still running?");
  }
  if (!response.ok) throw new Wrong((await response.json()).error);
  return response;
}

// What a stream of server-sent events tells, one by one.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const told = JSON.parse(part.slice("data: ".length));
      if (told.error) throw new Wrong(told.error);
      yield told;
    }
  }
}

async function grow(body, signal) {
  const chats = action === "chat";
  const box = el(chats ? "div" : "p", { class: chats ? "turn assistant" : "text growing" });
  if (chats) {
    turns = body.messages;
    answer.replaceChildren(el("div", { class: "turns" },
      ...turns.map(({ role, content }) => el("div", { class: `turn ${role}` }, content)), box));
    form.querySelector("#said").value = "";
  } else {
    answer.replaceChildren(box);
    box.append(el("span", { class: "wait" }, body.prompt));
  }
  let said = "";
  for await (const told of events(await ask(`/api/${action}`, body, signal))) {
    if (told.text) { said += told.text; box.append(told.text); }
    if (told.done) answer.append(el("p", { class: "small" },
      `${told.usage.completion_tokens} tokens${told.finish_reason === "length" ? ", cut at the limit" : ""}`));
  }
  if (chats) turns = [...turns, { role: "assistant", content: said }];
  return said;
}

// What the attention of a text is asked for with, after the answer to it.
function looked(values, body, found) {
  if (action === "translate") return { text: body.texts[0], other: found[0], source: body.source, target: body.target };
  if (action === "generate") return { text: values.prompt, other: found };
  return { text: values.text, other: values.pair };
}

// What the light over the picture is asked for with; nothing where none belongs to the answer.
function litBy(values, body, found) {
  if (action === "series") return { series: body.series[0] };
  if (action === "draw") return values.num > 1 ? null : { text: values.text, ...(values.seed == null ? {} : { seed: values.seed }) };
  if (action === "search") return values.pictures ? { text: values.query, picture: values.pictures[found[0].index] } : null;
  if (model.reads.includes("clips")) return { clip: values.pictures };
  return { picture: values.pictures[0], ...(values.question ? { text: values.question } : {}) };
}

async function light(given, signal) {
  const seen = await (await ask("/api/seen", { model: model.name, action, ...given }, signal)).json();
  attention.replaceChildren(...showSeen(seen, action));
}

// Of pictures that were found any may be looked into.
function lightFound(values, found) {
  answer.querySelectorAll("figure").forEach((figure, i) => {
    figure.tabIndex = 0;
    figure.onclick = () => light({ text: values.query, picture: values.pictures[found[i].index] }, running.signal).catch(console.error);
    figure.onkeydown = (event) => { if (event.key === "Enter") figure.onclick(); };
  });
}

async function submit(event) {
  event?.preventDefault();
  running?.abort();
  const mine = running = new AbortController();
  const button = form.querySelector("button");
  attention.replaceChildren();
  try {
    const values = valuesOf();
    const body = { model: model.name, ...ACTIONS[action].body(values, model) };
    button.disabled = true;
    answer.setAttribute("aria-busy", "true");
    let found;
    if (body.stream) found = await grow(body, mine.signal);
    else {
      if (!answer.childElementCount) answer.replaceChildren(el("p", { class: "wait" }, "…"));
      found = (await (await ask(`/api/${action}`, body, mine.signal)).json()).answers;
      answer.replaceChildren(...show(action, found, values, model));
    }
    if (model.attention && !model.seen.includes(action) && ["translate", "generate", "classify", "tag", "fill"].includes(action)) {
      const seen = looked(values, body, found);
      if (action !== "translate" || seen.other) {
        const map = await (await ask("/api/attention", { model: model.name, ...seen }, mine.signal)).json();
        attention.replaceChildren(...showAttention(map, action === "translate"));
      }
    }
    if (model.seen.includes(action)) {
      const given = litBy(values, body, found);
      if (given) await light(given, mine.signal);
      if (given && action === "search") lightFound(values, found);
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    const said = error instanceof Wrong ? error.message : "The page failed at this answer.";
    if (!(error instanceof Wrong)) console.error(error);
    // An answer stays where only its attention failed: that of a long text is not shown.
    if (answer.childElementCount && button.disabled && !answer.querySelector(".wait:only-child")) answer.append(el("p", { class: "error small" }, said));
    else answer.replaceChildren(el("p", { class: "error", role: "alert" }, said));
  } finally {
    button.disabled = false;
    answer.setAttribute("aria-busy", "false");
  }
}

form.addEventListener("submit", submit);
form.addEventListener("keydown", (event) => {
  const sends = event.key === "Enter" && (event.ctrlKey || event.metaKey || (action === "chat" && !event.shiftKey));
  if (sends && event.target.tagName === "TEXTAREA") submit(event);
});
window.addEventListener("hashchange", choose);

models = (await (await fetch("/api/models")).json()).models;
for (const one of models) for (const able of one.actions) {
  nav.append(el("a", { href: `#${encodeURIComponent(one.name)}/${able}`, "data-model": one.name, "data-action": able },
    able, el("small", {}, one.name)));
}
choose();
