// All of the work on an image, away from the page's thread: decoding, network, label map, painting.

import { Answerer } from "./answer.js";
import { compileDecoder } from "./decoder.js";
import { Network } from "./network.js";
import { networkSizes } from "./pixels.js";

const ROOT = new URL("../", import.meta.url);
const MOST_PIXELS = 1 << 26;
// The longest side of what the page shows: it is for the eye, and labels keep the image's size.
const MOST_SHOWN = 2048;

let answerer, description, palette;
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext("2d", { willReadFrequently: true });

self.addEventListener("message", async ({ data: { id, image } }) => {
  try {
    const [result, transfer] = image ? await analyse(image) : [await load(), []];
    self.postMessage({ id, result }, transfer);
  } catch (error) {
    self.postMessage({ id, error: messageOf(error) });
  }
});

async function load() {
  const site = await (await open("site.json")).json();
  description = site.model;
  const [decoder, model] = await Promise.all([
    open("decoder.wasm").then((response) => response.arrayBuffer()).then(compileDecoder),
    // Of the same version as the description, even while the site is being replaced.
    open("model.onnx", { integrity: site.integrity }).then((response) => response.arrayBuffer()),
  ]);
  const size = networkSizes(description, 64, 64).at(-1);
  const network = await Network.open(model, description, size);
  answerer = new Answerer(description, network, decoder);
  palette = makePalette(description.model.pixels.colors);
  return { model: description.model, backend: network.backend, threads: network.threads };
}

async function open(name, options) {
  const response = await fetch(new URL(name, ROOT), options);
  if (!response.ok) throw new Error(`${name} of this site is missing (${response.status})`);
  return response;
}

/** The result of a Blob of an image file or an ImageBitmap, and what of it is handed over. */
async function analyse(image) {
  const start = performance.now();
  const bitmap = image instanceof Blob ? await decode(image) : image;
  const { width, height } = bitmap;
  let pixels, picture;
  try {
    if (width * height > MOST_PIXELS) {
      throw new Error(`The picture has ${width}x${height} pixels; this page takes up to 64 million.`);
    }
    pixels = read(bitmap);
    picture = shrink(bitmap);
  } finally {
    bitmap.close();
  }
  const { labels, boxes, milliseconds } = await answerer.answer(pixels);
  const mask = labels && paint(labels, width, height, picture);
  const result = { width, height, labels, boxes, picture, mask };
  result.counts = labels && count(labels);
  result.milliseconds = { network: milliseconds, rest: performance.now() - start - milliseconds };
  const transfer = [picture, mask, labels?.buffer].filter(Boolean);
  return [result, transfer];
}

/** Pixels as they lie in the file, turned as it says, without its colour profile: as Python has them. */
async function decode(blob) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  try {
    return await createImageBitmap(blob, options);
  } catch {
    throw new Error("It is not a picture that this browser can read, or it is damaged.");
  }
}

function read(bitmap) {
  const { width, height } = bitmap;
  canvas.width = width; // which clears it
  canvas.height = height;
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  canvas.width = canvas.height = 1;
  return { data, width, height, channels: 4 };
}

function shrink(bitmap) {
  const scale = Math.min(1, MOST_SHOWN / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const small = new OffscreenCanvas(width, height), target = small.getContext("2d");
  target.imageSmoothingQuality = "high";
  target.drawImage(bitmap, 0, 0, width, height);
  return small.transferToImageBitmap();
}

/** The labels' colours, at the size of the picture that is shown. */
function paint(labels, width, height, picture) {
  const columns = nearest(width, picture.width), rows = nearest(height, picture.height);
  const image = new ImageData(columns.length, rows.length), pixels = new Uint32Array(image.data.buffer);
  const colors = palette, across = columns.length; // ImageBitmap's own sides are slow to read
  for (let y = 0, i = 0; y < rows.length; y++) {
    const row = rows[y] * width;
    for (let x = 0; x < across; x++, i++) pixels[i] = colors[labels[row + columns[x]]];
  }
  const target = new OffscreenCanvas(columns.length, rows.length);
  target.getContext("2d").putImageData(image, 0, 0);
  return target.transferToImageBitmap();
}

/** For each output position the nearest input position. */
function nearest(numIn, numOut) {
  return Int32Array.from({ length: numOut }, (_, i) => Math.floor(((i + 0.5) * numIn) / numOut));
}

/** For each class its colour as the four bytes of a pixel. */
function makePalette(colors) {
  return Uint32Array.from(colors, ([r, g, b]) => new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0]);
}

/** The pixels of each class. */
function count(labels) {
  const counts = new Uint32Array(palette.length);
  for (let i = 0; i < labels.length; i++) counts[labels[i]]++;
  return counts;
}

function messageOf(error) {
  if (error instanceof RangeError || /memory|allocat/i.test(error?.message)) {
    return "There is not enough memory for a picture of this size.";
  }
  return error?.message ?? String(error);
}
