// node pixels.mjs SCRIPTS FOLDER: what the page makes of the images that cases.json there lists.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [scripts, folder] = process.argv.slice(2);
const { networkSizes, normalise, resize } = await import(pathToFileURL(`${scripts}/pixels.js`));
const cases = JSON.parse(readFileSync(`${folder}/cases.json`));
cases.forEach(({ description, height, width, channels }, i) => {
  let image = { data: readFileSync(`${folder}/${i}.image`), height, width, channels };
  for (const size of networkSizes(description, height, width)) image = resize(image, ...size);
  writeFileSync(`${folder}/${i}.size`, JSON.stringify([image.height, image.width]));
  writeFileSync(`${folder}/${i}.pixels`, image.data);
  writeFileSync(`${folder}/${i}.input`, normalise(image, description.model));
});
