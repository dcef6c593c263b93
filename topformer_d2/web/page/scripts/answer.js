// What a network finds in an image: the class of each pixel, and boxes.

import { BoxPlan, LabelPlan } from "./decoder.js";
import { networkSizes, normalise, resize } from "./pixels.js";

export class Answerer {
  #plans = new Map();

  /**
   * @param {object} description of the model
   * @param {Network} network
   * @param {WebAssembly.Module} decoder
   */
  constructor(description, network, decoder) {
    Object.assign(this, { description, network, decoder });
  }

  /**
   * @param {{data, height, width, channels}} image 8 bits, RGB or RGBA
   * @returns {labels, boxes, milliseconds}: labels (height, width) or null; boxes a list of
   *   {box: [x0, y0, x1, y1] in pixels of the image, score, index of the class}, best first;
   *   milliseconds of the network
   */
  async answer(image) {
    const { description } = this, { height, width } = image;
    let resized = image;
    for (const size of networkSizes(description, height, width)) resized = resize(resized, ...size);
    const planes = normalise(resized, description.model), input = [resized.height, resized.width];
    const start = performance.now();
    const outputs = await this.network.run(planes, ...input);
    const milliseconds = performance.now() - start;
    const labels = outputs.logits ? this.#labels(outputs.logits, input, [height, width]) : null;
    return { labels, boxes: this.#boxes(outputs, input, [height, width]), milliseconds };
  }

  #labels({ data, dims }, input, labels) {
    const [, classes, ...logits] = dims;
    const make = () => new LabelPlan(this.decoder, { classes, logits, input, labels });
    return this.#plan("labels", [classes, logits, input, labels], make).run(data);
  }

  #boxes(outputs, input, size) {
    const found = this.#found(outputs);
    if (!found) return [];
    const [height, width] = size;
    const x = Math.fround(width / input[1]), y = Math.fround(height / input[0]);
    const boxes = [];
    for (let i = 0; i < found.scores.length; i++) {
      const [left, top, right, bottom] = found.boxes.subarray(4 * i, 4 * i + 4);
      const box = [
        clip(left * x, width), clip(top * y, height), clip(right * x, width), clip(bottom * y, height),
      ];
      if (!box.every(Number.isFinite)) throw new Error("The network gave NaN or infinite boxes.");
      if (box[2] > box[0] && box[3] > box[1]) {
        boxes.push({ box, score: found.scores[i], index: Number(found.classes[i]) });
      }
    }
    return boxes;
  }

  /** {boxes, scores, classes} in pixels of the network's input; null of a model without boxes. */
  #found(outputs) {
    const { model, decoding, outputs: names } = this.description;
    if (outputs.boxes) {
      return { boxes: outputs.boxes.data, scores: outputs.scores.data, classes: outputs.classes.data };
    }
    const pick = (start) => names.filter((name) => name.startsWith(start)).map((name) => outputs[name]);
    const logits = pick("class_logits_"), deltas = pick("box_deltas_");
    if (!logits.length) return null;
    const classes = model.objects.names.length, sizes = logits.map(({ dims }) => dims.slice(2));
    const make = () => new BoxPlan(this.decoder, decoding, classes, sizes);
    const data = [logits, deltas].map((levels) => levels.map((level) => level.data));
    return this.#plan("boxes", sizes, make).run(...data);
  }

  /** The plan of the last sizes; another one is made where they differ, and takes its place. */
  #plan(kind, sizes, make) {
    const key = JSON.stringify(sizes);
    if (this.#plans.get(kind)?.key !== key) {
      this.#plans.delete(kind);
      this.#plans.set(kind, { key, plan: make() });
    }
    return this.#plans.get(kind).plan;
  }
}

function clip(value, most) {
  return Math.min(Math.max(Math.fround(value), 0), most);
}
