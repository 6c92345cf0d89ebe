// @ts-check
/** The speaker: wire audio in, and back how much of each item was really heard. */

import { WIRE_RATE_HZ, toFloat } from "../codec.js";
import { Resampler } from "./resample.js";

/**
 * @typedef {object} Progress
 * @property {string} item
 * @property {number} playedMs of this item
 * @property {number} audibleMs of it that was not silence
 * @property {number} level RMS of the last stretch, 0..1
 * @property {number} underruns since the page began
 */

export class Speaker {
  /**
   * @param {AudioContext} context
   * @param {{ onProgress: (progress: Progress) => void, onEnded: (progress: Progress) => void }} on
   */
  static async open(context, on) {
    await context.audioWorklet.addModule(new URL("../worklets/playback.js", import.meta.url));
    return new Speaker(context, on);
  }

  /**
   * @param {AudioContext} context its playback worklet is loaded
   * @param {{ onProgress: (progress: Progress) => void, onEnded: (progress: Progress) => void }} on
   */
  constructor(context, { onProgress, onEnded }) {
    this._context = context;
    this._resampler = new Resampler(WIRE_RATE_HZ, context.sampleRate);
    /** @type {((flushed: { item: string | null, heardMs: number }) => void)[]} */
    this._flushing = [];
    this._node = new AudioWorkletNode(context, "playback", {
      numberOfInputs: 0,
      outputChannelCount: [2],
    });
    this._node.connect(context.destination);
    this._node.port.onmessage = ({ data }) => {
      if (data.type === "flushed") {
        // What the device still holds has been handed over but not heard.
        const heldMs = (context.outputLatency || context.baseLatency || 0) * 1000;
        const heardMs = Math.max(0, this._ms(data.played) - heldMs);
        this._flushing.shift()?.({ item: data.item, heardMs });
        return;
      }
      const { item, level = 0, underruns } = data;
      const playedMs = this._ms(data.played);
      const progress = { item, playedMs, audibleMs: this._ms(data.audible), level, underruns };
      (data.type === "ended" ? onEnded : onProgress)(progress);
    };
  }

  /** Queue sound of an item. @param {string} item @param {Int16Array} pcm 24 kHz */
  play(item, pcm) {
    this._post(item, this._resampler.push(toFloat(pcm)));
  }

  /** No more sound of this item will come. @param {string} item */
  end(item) {
    this._post(item, this._resampler.flush());
    this._node.port.postMessage({ type: "end", item });
  }

  /**
   * Fall silent at once and forget what is queued.
   * @returns {Promise<{ item: string | null, heardMs: number }>} what was cut off, if anything
   */
  flush() {
    this._resampler.reset();
    this._node.port.postMessage({ type: "flush" });
    return new Promise((resolve) => this._flushing.push(resolve));
  }

  /** @param {string} item @param {Float32Array} samples */
  _post(item, samples) {
    if (samples.length > 0) {
      this._node.port.postMessage({ type: "sound", item, samples }, [samples.buffer]);
    }
  }

  /** @param {number} samples */
  _ms(samples) {
    return (samples / this._context.sampleRate) * 1000;
  }
}
