// The page: what is opened, and what is said of it.

import { Engine } from "./engine.js";
import { showLists } from "./lists.js";
import { Moving } from "./moving.js";
import { Stage } from "./stage.js";

const LEAST_SCORE = 0.5; // of boxes that are drawn, as `topformer predict` has it
// Milliseconds for the service worker, without which the page works as well.
const PATIENCE = 10_000, PATIENCE_FOR_CHANGES = 3_000;

const element = (id) => document.getElementById(id);
const stage = new Stage(LEAST_SCORE);
const moving = new Moving(showFrame);
const camera = element("camera");
let model, opened = 0;
// The worker comes after the service worker, which keeps what it loads.
const offline = keepOffline();
const engine = offline.then(() => new Engine());

start();

async function start() {
  say("Loading the model…");
  try {
    const found = await (await engine).ready, isOffline = await offline;
    model = found.model;
    stage.setModel(model);
    const threads = found.threads === 1 ? "1 thread" : `${found.threads} threads`;
    const where = found.backend === "webgpu" ? "on the GPU (WebGPU)" : `on the CPU (WebAssembly, ${threads})`;
    say(`Ready: the model runs ${where}.${isOffline ? " The page now works offline, too." : ""}`);
    document.documentElement.dataset.ready = found.backend;
  } catch (error) {
    say("");
    complain(`The model cannot be loaded: ${error.message}`);
  }
}

/**
 * Have the service worker keep all that is loaded from here on; whether it does.
 *
 * Where the site has been changed since the last visit, the new page is loaded.
 */
async function keepOffline() {
  const { serviceWorker } = navigator;
  if (!serviceWorker) return false;
  const isKept = Boolean(serviceWorker.controller);
  const taken = new Promise((resolve) => {
    serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  });
  try {
    const address = new URL("../service_worker.js", import.meta.url);
    const registration = await serviceWorker.register(address);
    if (!isKept) return await within(taken, PATIENCE);
    const isAsked = await within(registration.update(), PATIENCE_FOR_CHANGES);
    if (isAsked && (registration.installing || registration.waiting)) {
      if (await within(taken, PATIENCE)) {
        location.reload();
        await new Promise(() => {}); // nothing more is done here
      }
    }
  } catch {
    // such as without a network, or where the browser's settings forbid it
  }
  return isKept;
}

/** Whether a promise is kept in so many milliseconds. */
function within(promise, milliseconds) {
  const late = new Promise((resolve) => setTimeout(resolve, milliseconds, false));
  return Promise.race([promise.then(() => true), late]);
}

function say(text) {
  element("status").textContent = text;
}

function complain(text) {
  element("error").hidden = !text;
  element("error").textContent = text;
}

/** Begin with something new; whether it is still what was opened last. */
function begin() {
  const mine = ++opened;
  complain("");
  camera.setAttribute("aria-pressed", "false");
  document.documentElement.dataset.state = "working";
  return () => mine === opened;
}

function end(isCurrent, name, error) {
  if (!isCurrent()) return;
  if (error) complain(`${name}: ${error.message}`);
  document.documentElement.dataset.state = error ? "failed" : "done";
}

async function openFile(file) {
  const isCurrent = begin();
  const isVideo = file.type.startsWith("video/");
  try {
    if (isVideo) await moving.openFile(file);
    else {
      moving.close();
      const result = await (await engine).analyse(file);
      if (result && isCurrent()) show(result, file.name, false);
    }
    end(isCurrent, file.name);
  } catch (error) {
    if (isVideo && isCurrent()) stopMoving();
    end(isCurrent, file.name, error);
  }
}

async function toggleCamera() {
  const isOn = camera.getAttribute("aria-pressed") === "true";
  const isCurrent = begin();
  if (isOn) {
    moving.close();
    return end(isCurrent, "Camera");
  }
  camera.setAttribute("aria-pressed", "true");
  try {
    await moving.openCamera();
    end(isCurrent, "Camera");
  } catch (error) {
    if (isCurrent()) stopMoving();
    end(isCurrent, "Camera", error);
  }
}

async function showFrame(frame, isCurrent) {
  try {
    const result = await (await engine).analyse(frame);
    if (result && isCurrent()) show(result, "Video", true);
  } catch (error) {
    if (!isCurrent()) return;
    stopMoving();
    complain(error.message);
  }
}

function stopMoving() {
  moving.close();
  camera.setAttribute("aria-pressed", "false");
}

function show(result, name, isMoving) {
  stage.show(result, name);
  showLists(result, stage.shown(result.boxes), model, isMoving);
  globalThis.topformer = { ...result, name }; // for the browser's console
}

element("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be opened again
  if (file) openFile(file);
});
camera.addEventListener("click", toggleCamera);

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    element("stage").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) openFile(file);
  });
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) openFile(file);
});
