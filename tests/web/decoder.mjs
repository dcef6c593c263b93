// node decoder.mjs SCRIPTS CASES ANSWERS: what the page's decoder makes of the cases in a file.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [scripts, casesFile, answersFile] = process.argv.slice(2);
const { BoxPlan, LabelPlan, compileDecoder } = await import(pathToFileURL(`${scripts}/decoder.js`));
const module = await compileDecoder(readFileSync(`${scripts}/../decoder.wasm`));
const { labels, boxes, floats } = JSON.parse(readFileSync(casesFile));
const values = readFileSync(floats);
let place = 0;
const take = (count) => {
  const found = new Float32Array(values.buffer.slice(values.byteOffset + place, values.byteOffset + place + 4 * count));
  place += 4 * count;
  return found;
};
const base64 = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength).toString("base64");
const product = (shape) => shape.reduce((a, b) => a * b, 1);
const attempt = (make) => {
  try {
    return make();
  } catch (error) {
    return { error: error.message };
  }
};
const answers = { labels: [], boxes: [] };
for (const { shape, input, valid, size } of labels) {
  const logits = take(product(shape));
  answers.labels.push(attempt(() => {
    const [classes, ...sides] = shape;
    const plan = new LabelPlan(module, { classes, logits: sides, input, valid, labels: size });
    const first = base64(plan.run(logits));
    if (base64(plan.run(logits)) !== first) throw new Error("a second run of a plan is another");
    return first;
  }));
}
for (const { decoding, classes, sizes } of boxes) {
  const anchors = decoding.cell_anchors[0].length;
  const [logits, deltas] = [classes, 4].map((n) => sizes.map((size) => take(n * anchors * product(size))));
  answers.boxes.push(attempt(() => {
    const found = new BoxPlan(module, decoding, classes, sizes).run(logits, deltas);
    return Object.fromEntries(Object.entries(found).map(([name, array]) => [name, base64(array)]));
  }));
}
writeFileSync(answersFile, JSON.stringify(answers));
