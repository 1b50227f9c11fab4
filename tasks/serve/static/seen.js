// What an answer about a picture, clip or series was read from, as light over it; of a drawing what read each word.
import { el } from "./show.js";

const SAID = {
  draw: "The parts that read a word are lit: point at one",
  search: "What of the picture speaks for the words is lit",
};

export function showSeen({ rows, picture, grid, covers, weights }, action) {
  if (!rows.length) return [];
  const canvas = el("canvas", { role: "img" }), image = new Image();
  const names = rows.map((name) => el("span", {}, name.trim() || "␣"));
  // What begins and ends a text is read often, and tells little.
  let chosen = Math.max(0, rows.findIndex((name) => !/^[<[].*[>\]]$/.test(name)));
  const draw = () => {
    const width = canvas.width = grid[0] === 1 ? 1088 : 544, height = canvas.height = Math.round(width * image.naturalHeight / image.naturalWidth);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = image.naturalWidth >= 200;
    pen.drawImage(image, 0, 0, width, height);
    const most = Math.max(...weights[chosen], 1e-9), x = width * covers[1] / grid[1], y = height * covers[0] / grid[0];
    weights[chosen].forEach((value, cell) => {
      const column = cell % grid[1], row = Math.floor(cell / grid[1]);
      const left = Math.round(column * x), top = Math.round(row * y);
      pen.fillStyle = `rgba(12, 14, 20, ${(0.78 * (1 - Math.sqrt(Math.max(0, value) / most))).toFixed(3)})`;
      pen.fillRect(left, top, Math.round((column + 1) * x) - left, Math.round((row + 1) * y) - top);
    });
    canvas.setAttribute("aria-label", `what ${rows[chosen]} was read from`);
  };
  const choose = (i) => {
    chosen = i;
    names.forEach((name, j) => name.classList.toggle("chosen", j === i));
    if (image.complete) draw();
  };
  names.forEach((name, i) => {
    name.tabIndex = 0;
    name.onmouseenter = name.onfocus = () => choose(i);
    name.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { event.preventDefault(); names[i + step]?.focus(); }
    };
  });
  image.onload = draw;
  image.src = picture;
  choose(chosen);
  return [
    el("h3", {}, SAID[action] ?? "What it was read from is lit: point at one"),
    ...(action === "search" ? [] : [el("div", { class: "tokens" }, ...names)]),
    el("div", { class: grid[0] === 1 ? "stage strip" : "stage" }, canvas),
  ];
}
