// The exported network in ONNX Runtime Web: on the GPU by WebGPU where there is one, else on the
// CPU by WebAssembly, in several threads where the page is isolated from other sites.

const RUNTIME = new URL("../runtime/", import.meta.url);
const OPTIONS = { logSeverityLevel: 3 }; // errors
const MOST_THREADS = 4; // as ONNX Runtime Web takes at most by itself

export class Network {
  /**
   * @param {ArrayBuffer} model of the .onnx file
   * @param {object} description of the model
   * @param {number[]} size [height, width] to try it with
   */
  static async open(model, description, size) {
    const gpu = await findGpu();
    const ort = await import(new URL(gpu ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs", RUNTIME).href);
    ort.env.wasm.wasmPaths = RUNTIME.href;
    ort.env.logLevel = "error";
    const threads = Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1);
    ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
    if (gpu) {
      const found = await Network.#tryGpu(ort, model, description, size);
      if (found) return found;
    }
    const options = { ...OPTIONS, executionProviders: ["wasm"] };
    const session = await ort.InferenceSession.create(model, options);
    return new Network(ort, session, description, "wasm");
  }

  /** On the GPU, if it runs there; null where it does not. */
  static async #tryGpu(ort, model, description, [height, width]) {
    try {
      const options = { ...OPTIONS, executionProviders: ["webgpu"] };
      const session = await ort.InferenceSession.create(model, options);
      const network = new Network(ort, session, description, "webgpu");
      const outputs = await network.run(new Float32Array(3 * height * width), height, width);
      const logits = Object.values(outputs)[0].data;
      if (logits.every(Number.isFinite)) return network;
      await session.release();
    } catch (error) {
      console.warn("The model does not run on this GPU, so it runs on the CPU:", error);
    }
    return null;
  }

  constructor(ort, session, description, backend) {
    Object.assign(this, { ort, session, description, backend });
    this.threads = backend === "wasm" ? ort.env.wasm.numThreads : 0;
  }

  /** The outputs by name, {data, dims}, of planes (3, height, width) float32. */
  async run(planes, height, width) {
    const images = new this.ort.Tensor("float32", planes, [1, 3, height, width]);
    const found = await this.session.run({ images });
    const outputs = {};
    for (const name of this.description.outputs) {
      outputs[name] = { data: found[name].data, dims: found[name].dims };
    }
    return outputs;
  }
}

/** A GPU, and not a program that stands for one, which is slower than WebAssembly. */
async function findGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return adapter && !adapter.info?.isFallbackAdapter ? adapter : null;
  } catch {
    return null;
  }
}
