// What was found, in words: classes with their shares, objects with their scores, and the times.

import { percent } from "./stage.js";

const element = (id) => document.getElementById(id);

/**
 * @param {object} result of the worker
 * @param {object[]} boxes of it that are shown
 * @param {object} model of the description
 * @param {boolean} isMoving of a video: classes keep their order, so that they can be read
 */
export function showLists(result, boxes, model, isMoving) {
  const { counts, width, height, milliseconds } = result;
  element("times").hidden = false;
  element("network-time").textContent = `${Math.round(milliseconds.network)} ms`;
  element("rest-time").textContent = `${Math.round(milliseconds.rest)} ms`;
  element("legend").hidden = !counts;
  if (counts) {
    const present = [...counts.keys()].filter((index) => counts[index]);
    if (!isMoving) present.sort((a, b) => counts[b] - counts[a]);
    const area = width * height, { names, colors } = model.pixels;
    fill("classes", present.map((i) => [colors[i], names[i], shareOf(counts[i] / area)]));
  }
  element("found").hidden = !model.objects.names.length;
  const { names, colors } = model.objects;
  fill("objects", boxes.map(({ index, score }) => [colors[index], names[index], percent(score)]));
}

function shareOf(share) {
  return share < 0.01 ? `${(100 * share).toFixed(1)}%` : percent(share);
}

/** Rows of colour, name and value. */
function fill(id, rows) {
  element(id).replaceChildren(...rows.map(([color, name, value]) => {
    const row = document.createElement("li");
    const [swatch, ...texts] = ["", name, value].map((text) => {
      const part = document.createElement("span");
      part.textContent = text;
      return part;
    });
    swatch.className = "swatch";
    swatch.style.background = `rgb(${color.join(" ")})`;
    row.append(swatch, ...texts);
    return row;
  }));
}
