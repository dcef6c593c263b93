// The picture with the labels' colours and the boxes over it, and the class at a point.

const element = (id) => document.getElementById(id);
const STEP = 1 / 50; // of the picture, that an arrow key moves the point

export class Stage {
  #result = null;
  #model = null;
  #point = null; // of the keyboard, in parts of the sides
  #stage = element("stage");
  #layers = { picture: element("picture"), mask: element("mask") };
  #boxes = element("boxes");

  /** @param {number} leastScore boxes below it are not drawn, nor named */
  constructor(leastScore) {
    this.leastScore = leastScore;
    const opacity = element("opacity");
    const apply = () => (this.#layers.mask.style.opacity = opacity.value / 100);
    opacity.addEventListener("input", apply);
    apply();
    this.#stage.addEventListener("pointermove", (event) => this.#hover(event));
    this.#stage.addEventListener("pointerdown", (event) => this.#hover(event));
    this.#stage.addEventListener("pointerleave", () => (element("reading").hidden = true));
    this.#stage.addEventListener("keydown", (event) => this.#move(event));
    this.#stage.addEventListener("blur", () => this.#hidePoint());
    new ResizeObserver(() => this.#drawBoxes()).observe(this.#stage);
  }

  /** @param {object} model of the description */
  setModel(model) {
    this.#model = model;
    element("opacity-label").hidden = !model.pixels.names.length;
  }

  /** Show the worker's result; `name` says what of. */
  show(result, name) {
    this.#result = result;
    this.#stage.classList.add("full");
    this.#stage.style.setProperty("--ratio", result.width / result.height);
    for (const [layer, canvas] of Object.entries(this.#layers)) {
      const bitmap = result[layer];
      canvas.hidden = !bitmap;
      if (!bitmap) continue;
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
    }
    this.#stage.setAttribute("aria-label", `${name}, ${result.width} by ${result.height} pixels`);
    this.#drawBoxes();
    if (this.#point) this.#read(...this.#point, false);
    else element("reading").hidden = true;
  }

  #drawBoxes() {
    if (!this.#result || !this.#stage.clientWidth) return;
    const { width, height, boxes } = this.#result, canvas = this.#boxes;
    canvas.hidden = !boxes.length;
    if (!boxes.length) return;
    const ratio = Math.min(2, devicePixelRatio || 1);
    canvas.width = Math.round(this.#stage.clientWidth * ratio);
    canvas.height = Math.round(this.#stage.clientHeight * ratio);
    const context = canvas.getContext("2d"), { names, colors } = this.#model.objects;
    context.scale(ratio, ratio);
    context.font = "600 13px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.lineWidth = 2;
    const x = this.#stage.clientWidth / width, y = this.#stage.clientHeight / height;
    for (const { box, score, index } of this.shown(boxes).reverse()) { // the best one on top
      const [left, top, right, bottom] = [box[0] * x, box[1] * y, box[2] * x, box[3] * y];
      const [r, g, b] = colors[index], text = `${names[index]} ${percent(score)}`;
      context.strokeStyle = context.fillStyle = `rgb(${r} ${g} ${b})`;
      context.strokeRect(left, top, right - left, bottom - top);
      const tag = context.measureText(text).width + 8, above = Math.max(0, top - 18);
      const at = Math.max(0, Math.min(left - 1, this.#stage.clientWidth - tag));
      context.fillRect(at, above, tag, 18);
      context.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff";
      context.fillText(text, at + 4, above + 9.5);
    }
  }

  /** The boxes of enough score. */
  shown(boxes) {
    return boxes.filter(({ score }) => score >= this.leastScore);
  }

  #hover(event) {
    this.#hidePoint();
    const area = this.#stage.getBoundingClientRect();
    this.#read((event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height, false);
  }

  #move(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by || !this.#result) return;
    event.preventDefault();
    const step = event.shiftKey ? 5 * STEP : STEP;
    this.#point = (this.#point ?? [0.5, 0.5]).map((place, i) => Math.min(Math.max(place + by[i] * step, 0), 1));
    const cross = element("cross");
    cross.hidden = false;
    cross.style.left = `${100 * this.#point[0]}%`;
    cross.style.top = `${100 * this.#point[1]}%`;
    this.#read(...this.#point, true);
  }

  #hidePoint() {
    this.#point = null;
    element("cross").hidden = element("reading").hidden = true;
  }

  /** Show what is at a place, in parts of the sides, and say it if it is `spoken`. */
  #read(across, down, spoken) {
    const reading = element("reading"), text = this.#result ? this.classAt(across, down) : "";
    reading.hidden = !text;
    reading.textContent = text;
    if (spoken) element("spoken").textContent = text || "nothing";
    const { clientWidth, clientHeight } = this.#stage;
    const left = Math.min(across * clientWidth + 14, clientWidth - reading.offsetWidth - 2);
    const top = Math.min(down * clientHeight + 14, clientHeight - reading.offsetHeight - 2);
    reading.style.left = `${Math.max(0, left)}px`;
    reading.style.top = `${Math.max(0, top)}px`;
  }

  /** The class of the pixel at a place, and those of the boxes around it. */
  classAt(across, down) {
    const { width, height, labels, boxes } = this.#result, { pixels, objects } = this.#model;
    const x = Math.min(Math.max(Math.floor(across * width), 0), width - 1);
    const y = Math.min(Math.max(Math.floor(down * height), 0), height - 1);
    const here = this.shown(boxes)
      .filter(({ box }) => box[0] <= x && x < box[2] && box[1] <= y && y < box[3])
      .map(({ index, score }) => `${objects.names[index]} ${percent(score)}`);
    return [...(labels ? [pixels.names[labels[y * width + x]]] : []), ...new Set(here)].join(", ");
  }
}

/** A share as "87%". */
export function percent(share) {
  return `${Math.round(100 * share)}%`;
}
