// The worker, as the page calls it.

export class Engine {
  #worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  #answers = new Map();
  #number = 0;
  #running = Promise.resolve();
  #newest = 0;

  constructor() {
    this.#worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.#answers.get(id);
      this.#answers.delete(id);
      error === undefined ? resolve(result) : reject(new Error(error));
    });
    this.#worker.addEventListener("error", (event) => {
      const reason = new Error(`The model's worker failed: ${event.message || "it could not be loaded"}`);
      for (const { reject } of this.#answers.values()) reject(reason);
      this.#answers.clear();
    });
    /** {model, backend, threads} once images can be looked at. */
    this.ready = this.#ask({}, []);
    this.ready.catch(() => {}); // whoever waits for it is told
  }

  /**
   * What is in a Blob of an image file or an ImageBitmap, which is handed over.
   *
   * @returns the worker's result; null where a newer image came before this one's turn
   */
  async analyse(image) {
    const mine = ++this.#newest;
    const turn = this.#running.then(async () => {
      await this.ready;
      if (mine === this.#newest) return this.#ask({ image }, image instanceof Blob ? [] : [image]);
      image.close?.();
      return null;
    });
    this.#running = turn.catch(() => {});
    return turn;
  }

  #ask(message, transfer) {
    const id = ++this.#number;
    return new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...message }, transfer);
    });
  }
}
