// The label map and the boxes of a network's outputs, by decoder.wasm: the C files of the package.

const IMPORTS = { math: { exp: Math.exp, log: Math.log } };

/** A compiled decoder.wasm, of which each plan below has an instance with a memory of its own. */
export function compileDecoder(bytes) {
  return WebAssembly.compile(bytes);
}

/** The exported functions, and what writes to and reads from the memory that they work in. */
class Instance {
  constructor(module) {
    this.exports = new WebAssembly.Instance(module, IMPORTS).exports;
  }

  allocate(size) {
    const place = this.exports.malloc(size) >>> 0;
    if (!place) throw new Error("There is not enough memory for an image of this size.");
    return place;
  }

  /** A view of the memory; it is lost when something is allocated. */
  view(Type, place, length) {
    return new Type(this.exports.memory.buffer, place, length);
  }

  /** The place of a copy. */
  copy(values) {
    const place = this.allocate(values.byteLength);
    this.view(values.constructor, place, values.length).set(values);
    return place;
  }
}

/** What makes label maps of one size. */
export class LabelPlan {
  /**
   * @param {WebAssembly.Module} module
   * @param {{classes: number, logits: number[], input: number[], labels: number[]}} sizes
   *   each [height, width]: of the logits, of the network's input and of the label map. An `input`
   *   of [0, 0] leaves out the first resize; `valid` may name a part of it.
   */
  constructor(module, { classes, logits, input, valid = [0, 0], labels }) {
    const instance = new Instance(module);
    const sizes = instance.copy(Int32Array.of(classes, ...logits, ...input, ...valid, ...labels));
    this.plan = instance.exports.topformer_label_plan_create(sizes);
    if (!this.plan) throw new Error("There is not enough memory for an image of this size.");
    this.length = labels[0] * labels[1];
    this.Type = classes <= 256 ? Uint8Array : Uint16Array;
    this.count = classes * logits[0] * logits[1];
    this.logits = instance.allocate(4 * this.count);
    this.labels = instance.allocate(this.Type.BYTES_PER_ELEMENT * this.length);
    this.instance = instance;
  }

  /** The class of each pixel, a new array; of (classes, height, width) float32 logits. */
  run(logits) {
    if (logits.length !== this.count) throw new Error(`${logits.length} logits are not ${this.count}`);
    this.instance.view(Float32Array, this.logits, this.count).set(logits);
    const { topformer_label_map: labelMap } = this.instance.exports;
    if (labelMap(this.plan, this.logits, this.labels, 0) !== 0) throw notFinite();
    return this.instance.view(this.Type, this.labels, this.length).slice();
  }
}

/** What makes boxes of a detector's raw outputs, of one size. */
export class BoxPlan {
  /**
   * @param {WebAssembly.Module} module
   * @param {object} decoding of the model's description
   * @param {number} classes
   * @param {number[][]} sizes of each level, [height, width]
   */
  constructor(module, decoding, classes, sizes) {
    const instance = new Instance(module);
    const anchors = decoding.cell_anchors[0].length;
    const ints = new Int32Array(17), floats = new Float32Array(ints.buffer);
    ints.set([classes, sizes.length, anchors]);
    ints.set([
      instance.copy(Int32Array.from(sizes, (size) => size[0])),
      instance.copy(Int32Array.from(sizes, (size) => size[1])),
      instance.copy(Float32Array.from(decoding.strides)),
      instance.copy(Float32Array.from(decoding.cell_anchors.flat(2))),
    ], 3);
    floats.set([decoding.offset, ...decoding.box_weights, decoding.scale_clamp], 7);
    floats[13] = decoding.score_threshold;
    // More candidates or boxes than this are of no picture, and their memory is taken at once.
    ints[14] = Math.min(decoding.topk, 1 << 16);
    floats[15] = decoding.nms_threshold;
    this.most = ints[16] = Math.min(decoding.max_detections, 1 << 16);
    this.plan = instance.exports.topformer_box_plan_create(instance.copy(ints));
    if (!this.plan) throw new Error("The model's description of its boxes does not fit the network.");
    this.lengths = sizes.map(([height, width]) => anchors * height * width);
    this.classes = classes;
    this.logits = this.lengths.map((n) => instance.allocate(4 * n * classes));
    this.deltas = this.lengths.map((n) => instance.allocate(16 * n));
    this.pointers = [this.logits, this.deltas].map((each) => instance.copy(Int32Array.from(each)));
    this.outputs = [16, 4, 4].map((size) => instance.allocate(size * this.most));
    this.instance = instance;
  }

  /** {boxes, scores, classes}, best first; of a Float32Array of logits and of deltas a level. */
  run(logits, deltas) {
    const { instance, lengths, classes } = this;
    lengths.forEach((n, level) => {
      if (logits[level].length !== n * classes || deltas[level].length !== 4 * n) {
        throw new Error(`level ${level} of the boxes has another size`);
      }
      instance.view(Float32Array, this.logits[level], n * classes).set(logits[level]);
      instance.view(Float32Array, this.deltas[level], 4 * n).set(deltas[level]);
    });
    const { topformer_find_boxes: findBoxes } = instance.exports;
    const count = findBoxes(this.plan, ...this.pointers, ...this.outputs);
    if (count < 0) throw notFinite();
    const [boxes, scores, found] = this.outputs;
    return {
      boxes: instance.view(Float32Array, boxes, 4 * count).slice(),
      scores: instance.view(Float32Array, scores, count).slice(),
      classes: instance.view(Int32Array, found, count).slice(),
    };
  }
}

function notFinite() {
  return new Error("The network gave NaN or infinite numbers: the image does not fit the model.");
}
