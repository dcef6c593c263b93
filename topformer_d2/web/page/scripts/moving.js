// A video or the camera: frame after frame to the engine, always the newest one.

const element = (id) => document.getElementById(id);

export class Moving {
  #video = element("video");
  #stream = null;
  #address = null;
  #closing = new AbortController(); // of what is open: whatever waits for it ends

  /** @param {(frame: ImageBitmap, isCurrent: () => boolean) => Promise<void>} look at a frame */
  constructor(look) {
    this.look = look;
    const video = this.#video, play = element("play"), position = element("position");
    play.addEventListener("click", () => (video.paused ? this.#play() : video.pause()));
    for (const kind of ["play", "pause", "ended"]) {
      video.addEventListener(kind, () => (play.textContent = video.paused ? "Play" : "Pause"));
    }
    position.addEventListener("input", () => {
      if (Number.isFinite(video.duration)) video.currentTime = (position.value / 1000) * video.duration;
    });
    video.addEventListener("timeupdate", () => {
      if (!Number.isFinite(video.duration)) return;
      position.value = (1000 * video.currentTime) / video.duration;
      position.setAttribute("aria-valuetext", clock(video.currentTime));
      element("clock").textContent = `${clock(video.currentTime)} of ${clock(video.duration)}`;
    });
  }

  /** Play a file; an error where the browser cannot. */
  async openFile(file) {
    this.close();
    this.#address = URL.createObjectURL(file);
    this.#video.src = this.#address;
    this.#video.loop = true;
    await this.#start("It is not a video that this browser can play, or it is damaged.");
    element("player").hidden = false;
  }

  /** Show what the camera sees; an error where there is none or it may not be used. */
  async openCamera() {
    this.close();
    const { signal } = this.#closing;
    if (!navigator.mediaDevices) throw new Error("A camera needs an https:// address, or localhost.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const reasons = {
        NotAllowedError: "The camera may not be used: allow it in the browser's settings of this page.",
        NotFoundError: "No camera was found.",
        NotReadableError: "The camera is used by another program.",
      };
      throw new Error(reasons[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
    if (signal.aborted) return stopStream(stream);
    this.#stream = stream;
    this.#video.srcObject = stream;
    await this.#start("The camera gives no pictures.");
  }

  /** Let go of the file or the camera. */
  close() {
    this.#closing.abort();
    this.#closing = new AbortController();
    stopStream(this.#stream);
    this.#stream = null;
    this.#video.pause();
    this.#video.srcObject = null;
    this.#video.removeAttribute("src");
    this.#video.load();
    this.#video.hidden = true;
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#address = null;
    element("player").hidden = true;
  }

  async #start(trouble) {
    const { signal } = this.#closing, video = this.#video;
    video.hidden = false;
    await new Promise((resolve, reject) => {
      video.addEventListener("loadeddata", resolve, { once: true, signal });
      video.addEventListener("error", () => reject(new Error(trouble)), { once: true, signal });
      signal.addEventListener("abort", resolve);
    });
    if (signal.aborted) return;
    await this.#play();
    this.#follow(signal);
  }

  async #play() {
    try {
      await this.#video.play();
    } catch {
      this.#video.pause(); // such as where the browser saves power; the button plays it
    }
  }

  async #follow(signal) {
    while (!signal.aborted) {
      const frame = await createImageBitmap(this.#video).catch(() => null);
      if (frame && !signal.aborted) await this.look(frame, () => !signal.aborted);
      else frame?.close();
      if (!signal.aborted) await nextFrame(this.#video, signal);
    }
  }
}

/** Once the video shows another frame, or is closed. */
function nextFrame(video, signal) {
  return new Promise((resolve) => {
    if (!video.requestVideoFrameCallback) return requestAnimationFrame(resolve);
    video.requestVideoFrameCallback(resolve);
    signal.addEventListener("abort", resolve, { once: true });
  });
}

function stopStream(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}
