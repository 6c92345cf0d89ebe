// @ts-check
/**
 * Microphone: cuts what the audio thread delivers into frames, nothing else.
 *
 * in   processorOptions: { frameSamples }
 * out  Float32Array of frameSamples samples, -1..1, at the context's rate (transferred)
 */

class Capture extends AudioWorkletProcessor {
  /** @param {{ processorOptions: { frameSamples: number } }} options */
  constructor({ processorOptions }) {
    super();
    this._size = processorOptions.frameSamples;
    this._frame = new Float32Array(this._size);
    this._filled = 0;
  }

  /** @param {Float32Array[][]} inputs */
  process([input]) {
    const block = input?.[0];
    if (!block) return true; // the microphone is not connected yet
    for (let at = 0; at < block.length; ) {
      const part = block.subarray(at, at + this._size - this._filled);
      this._frame.set(part, this._filled);
      this._filled += part.length;
      at += part.length;
      if (this._filled === this._size) {
        this.port.postMessage(this._frame, [this._frame.buffer]);
        this._frame = new Float32Array(this._size);
        this._filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("capture", Capture);
