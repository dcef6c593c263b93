// From an image to the network's input, with the same numbers as topformer_d2.Predictor: resizing
// as cv2.resize does it (bilinear, without antialiasing, in fixed point) and normalisation.

const BITS = 11; // of a weight, as OpenCV has them
const ONE = 1 << BITS;

/** The sizes [height, width] of an image after each resize; see FitForTest of the package. */
export function networkSizes(description, height, width) {
  if (description.size) return [description.size];
  const { short_side: short, long_side: long, size_divisor: divisor } = description.model;
  let fit = [height, width];
  if (short) {
    const scale = Math.min(long / Math.max(height, width), short / Math.min(height, width));
    fit = fit.map((side) => Math.max(1, Math.floor(side * scale + 0.5)));
  }
  return [fit, fit.map((side) => Math.ceil(side / divisor) * divisor)];
}

/**
 * An image {data, height, width, channels} of 8 bits at another size, with three channels.
 *
 * The channels of `data` lie side by side; a fourth one, such as a canvas has, is left out.
 */
export function resize(image, height, width) {
  if (image.height === height && image.width === width) return withoutAlpha(image);
  if (image.height === 2 * height && image.width === 2 * width) return halve(image);
  const columns = taps(image.width, width), rows = taps(image.height, height);
  const data = new Uint8ClampedArray(3 * height * width);
  // The two resized rows that an output row lies between, kept for the next one.
  const kept = [new Int32Array(3 * width), new Int32Array(3 * width)], keptRows = [-1, -1];
  const rowOf = (index) => {
    if (keptRows[index & 1] !== index) {
      resizeRow(image, index, columns, kept[index & 1]);
      keptRows[index & 1] = index;
    }
    return kept[index & 1];
  };
  for (let y = 0, i = 0; y < height; y++) {
    const first = rowOf(rows.first[y]), second = rowOf(rows.second[y]);
    const a = rows.weights[2 * y], b = rows.weights[2 * y + 1];
    for (let x = 0; x < 3 * width; x++, i++) {
      data[i] = (((a * (first[x] >> 4)) >> 16) + ((b * (second[x] >> 4)) >> 16) + 2) >> 2;
    }
  }
  return { data, height, width, channels: 3 };
}

function resizeRow({ data, width, channels }, row, columns, target) {
  const start = row * width * channels;
  for (let x = 0, i = 0; x < columns.first.length; x++, i += 3) {
    const first = start + columns.first[x] * channels, second = start + columns.second[x] * channels;
    const a = columns.weights[2 * x], b = columns.weights[2 * x + 1];
    target[i] = a * data[first] + b * data[second];
    target[i + 1] = a * data[first + 1] + b * data[second + 1];
    target[i + 2] = a * data[first + 2] + b * data[second + 2];
  }
}

/** For each output position the two input positions and their weights, in parts of ONE. */
function taps(numIn, numOut) {
  const scale = 1 / (numOut / numIn);
  const first = new Int32Array(numOut), second = new Int32Array(numOut);
  const weights = new Int32Array(2 * numOut);
  for (let i = 0; i < numOut; i++) {
    const source = Math.fround((i + 0.5) * scale - 0.5), index = Math.floor(source);
    const fraction = Math.fround(source - index);
    first[i] = Math.min(Math.max(index, 0), numIn - 1);
    second[i] = Math.min(Math.max(index + 1, 0), numIn - 1);
    weights[2 * i] = roundToEven(Math.fround(1 - fraction) * ONE);
    weights[2 * i + 1] = roundToEven(fraction * ONE);
  }
  return { first, second, weights };
}

function roundToEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

/** At half the size OpenCV takes the mean of four pixels. */
function halve({ data, height, width, channels }) {
  const halved = new Uint8ClampedArray((3 * height * width) / 4), line = width * channels;
  for (let y = 0, i = 0; y < height; y += 2) {
    for (let x = 0; x < width; x += 2) {
      for (let c = 0; c < 3; c++) {
        const at = y * line + x * channels + c;
        const sum = data[at] + data[at + channels] + data[at + line] + data[at + line + channels];
        halved[i++] = (sum + 2) >> 2;
      }
    }
  }
  return { data: halved, height: height / 2, width: width / 2, channels: 3 };
}

function withoutAlpha(image) {
  if (image.channels === 3) return image;
  const { height, width, channels } = image, data = new Uint8ClampedArray(3 * height * width);
  for (let i = 0, j = 0; j < data.length; i += channels, j += 3) {
    for (let c = 0; c < 3; c++) data[j + c] = image.data[i + c];
  }
  return { data, height, width, channels: 3 };
}

/** The network's input (3, height, width) float32 of an image in RGB, by the model's numbers. */
export function normalise({ data, height, width }, model) {
  const area = height * width, planes = new Float32Array(3 * area), table = new Float32Array(256);
  for (let c = 0; c < 3; c++) {
    const mean = Math.fround(model.pixel_mean[c]), std = Math.fround(model.pixel_std[c]);
    for (let value = 0; value < 256; value++) table[value] = Math.fround(value - mean) / std;
    const channel = model.image_format === "RGB" ? c : 2 - c, start = c * area;
    for (let i = 0; i < area; i++) planes[start + i] = table[data[3 * i + channel]];
  }
  return planes;
}
