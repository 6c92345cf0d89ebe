// @ts-check
/**
 * Speaker: plays the sound of items in order and says how much of each was played.
 *
 * Waits for a small buffer before an item begins, and for a larger one each time it
 * ran dry. A flush drops everything queued and fades out what sounds.
 *
 * in   { type: "sound", item, samples }   Float32Array at the context's rate
 *      { type: "end", item }              no more sound will come for it
 *      { type: "flush" }
 * out  { type: "progress", item, played, audible, level, underruns }   every 50 ms of an item
 *      { type: "ended", item, played, audible, underruns }
 *      { type: "flushed", item, played }  item null if nothing was playing or queued
 *
 * `played` counts samples of the item, `audible` those of them that were not silence,
 * `level` is the RMS since the last report, `underruns` counts since the page began.
 */

const START_S = 0.05;
const GROWTH_S = 0.05; // more buffer after each time it ran dry ...
const MOST_S = 0.3; // ... up to this
const FADE_S = 0.008;
const REPORT_S = 0.05;
const SILENCE = 0.003; // -50 dBFS

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    /** @type {{ item: string, chunks: Float32Array[], offset: number, queued: number, ended: boolean }[]} */
    this._items = [];
    this._startSamples = START_S * sampleRate;
    this._underruns = 0;
    /** @type {Float32Array | null} the fading end of what was flushed */
    this._fade = null;
    // Of the item that sounds:
    this._running = false;
    this._played = 0;
    this._audible = 0;
    this._energy = 0; // since the last report, as is the next
    this._unreported = 0;
    this.port.onmessage = ({ data }) => this._take(data);
  }

  /** Ready for the next item. */
  _begin() {
    this._running = false;
    this._played = 0;
    this._audible = 0;
    this._energy = 0;
    this._unreported = 0;
  }

  /** @param {any} message */
  _take(message) {
    if (message.type === "flush") {
      this._flush();
      return;
    }
    let entry = this._items.find(({ item }) => item === message.item);
    if (!entry) {
      entry = { item: message.item, chunks: [], offset: 0, queued: 0, ended: false };
      this._items.push(entry);
    }
    if (message.type === "end") {
      entry.ended = true;
    } else {
      entry.chunks.push(message.samples);
      entry.queued += message.samples.length;
    }
  }

  _flush() {
    const [head] = this._items;
    const played = this._played;
    if (head && this._running) {
      const fade = new Float32Array(Math.round(FADE_S * sampleRate));
      const got = this._read(head, fade, 0);
      for (let at = 0; at < got; at++) fade[at] *= 1 - at / fade.length;
      this._fade = fade.subarray(0, got);
    }
    this._items = [];
    this._begin();
    this.port.postMessage({ type: "flushed", item: head?.item ?? null, played });
  }

  /**
   * @param {Float32Array[][]} _inputs
   * @param {Float32Array[][]} outputs
   */
  process(_inputs, [channels]) {
    const [output] = channels;
    let at = 0;
    if (this._fade) {
      const part = this._fade.subarray(0, output.length);
      output.set(part);
      at = part.length;
      this._fade = this._fade.length > at ? this._fade.subarray(at) : null;
    }
    while (at < output.length && this._items.length > 0) {
      const [head] = this._items;
      this._running ||= head.ended || head.queued >= this._startSamples;
      if (!this._running) break;
      const got = this._read(head, output, at);
      this._count(output.subarray(at, at + got));
      at += got;
      if (head.queued > 0) continue;
      if (head.ended) {
        this._report("ended", head.item);
        this._items.shift();
        this._begin();
      } else if (at < output.length) {
        this._running = false;
        this._underruns += 1;
        const most = MOST_S * sampleRate;
        this._startSamples = Math.min(most, this._startSamples + GROWTH_S * sampleRate);
      }
    }
    if (this._unreported >= REPORT_S * sampleRate) this._report("progress", this._items[0].item);
    for (const channel of channels.slice(1)) channel.set(output);
    return true;
  }

  /**
   * Move samples of an item into `output` from `at` on; returns how many.
   * @param {{ chunks: Float32Array[], offset: number, queued: number }} entry
   * @param {Float32Array} output @param {number} at
   */
  _read(entry, output, at) {
    const start = at;
    while (at < output.length && entry.chunks.length > 0) {
      const [chunk] = entry.chunks;
      const part = chunk.subarray(entry.offset, entry.offset + output.length - at);
      output.set(part, at);
      at += part.length;
      entry.offset += part.length;
      if (entry.offset === chunk.length) {
        entry.chunks.shift();
        entry.offset = 0;
      }
    }
    entry.queued -= at - start;
    return at - start;
  }

  /** @param {Float32Array} samples just played */
  _count(samples) {
    this._played += samples.length;
    this._unreported += samples.length;
    for (const sample of samples) {
      this._energy += sample * sample;
      if (Math.abs(sample) > SILENCE) this._audible += 1;
    }
  }

  /** @param {"progress" | "ended"} type @param {string} item */
  _report(type, item) {
    const level = Math.sqrt(this._energy / Math.max(1, this._unreported));
    this.port.postMessage({
      type,
      item,
      played: this._played,
      audible: this._audible,
      level,
      underruns: this._underruns,
    });
    this._energy = 0;
    this._unreported = 0;
  }
}

registerProcessor("playback", Playback);
