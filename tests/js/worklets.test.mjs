// The worklets on a stand-in for the audio thread: blocks of 128 samples, at 8 kHz.
import assert from "node:assert/strict";
import { test } from "node:test";

const BLOCK = 128;
const RATE = 8000;

/** @type {Map<string, any>} */
const processors = new Map();
globalThis.sampleRate = RATE;
globalThis.registerProcessor = (name, processor) => processors.set(name, processor);
globalThis.AudioWorkletProcessor = class {
  port = { sent: [], postMessage: (message) => this.port.sent.push(message), onmessage: null };
};
await import("../../web_client/worklets/capture.js");
await import("../../web_client/worklets/playback.js");

const Capture = processors.get("capture");
const Playback = processors.get("playback");

const ramp = (length, from = 1) => Float32Array.from({ length }, (_, at) => (from + at) / 100_000);
const loud = (length) => new Float32Array(length).fill(0.5);

/** A playback processor with shorthands for messages and time. */
function player() {
  const processor = new Playback();
  const take = (data) => processor.port.onmessage({ data });
  return {
    sent: processor.port.sent,
    sound: (item, samples) => take({ type: "sound", item, samples }),
    end: (item) => take({ type: "end", item }),
    flush: () => take({ type: "flush" }),
    last: (type) => processor.port.sent.filter((message) => message.type === type).at(-1),
    /** Run `blocks` blocks; returns what was heard. */
    run(blocks) {
      const heard = [];
      for (let at = 0; at < blocks; at++) {
        const channels = [new Float32Array(BLOCK), new Float32Array(BLOCK)];
        assert.equal(processor.process([], [channels]), true);
        assert.deepEqual(channels[1], channels[0]);
        heard.push(...channels[0]);
      }
      return Float32Array.from(heard);
    },
  };
}

test("capture cuts blocks into frames and loses no sample", () => {
  const processor = new Capture({ processorOptions: { frameSamples: 200 } });
  const input = ramp(BLOCK * 25);
  for (let at = 0; at < input.length; at += BLOCK) {
    assert.equal(processor.process([[input.slice(at, at + BLOCK)]]), true);
  }
  const frames = processor.port.sent;
  assert.deepEqual(frames.map(({ length }) => length), Array(16).fill(200));
  assert.deepEqual(Float32Array.from(frames.flatMap((frame) => [...frame])), input);
});

test("capture waits for a microphone that is not there yet", () => {
  const processor = new Capture({ processorOptions: { frameSamples: 200 } });
  assert.equal(processor.process([[]]), true);
  assert.equal(processor.process([]), true);
  assert.deepEqual(processor.port.sent, []);
});

test("playback waits for 50 ms of sound, then plays every sample once", () => {
  const speaker = player();
  speaker.sound("a", ramp(300));
  assert.ok(speaker.run(3).every((x) => x === 0), "300 samples are less than 50 ms");
  speaker.sound("a", ramp(300, 301));
  speaker.end("a");
  const heard = speaker.run(6);
  assert.deepEqual(heard.subarray(0, 600), ramp(600));
  assert.ok(heard.subarray(600).every((x) => x === 0));
  assert.equal(speaker.last("ended").played, 600);
  assert.equal(speaker.last("ended").underruns, 0);
});

test("an item that is whole is played however short it is", () => {
  const speaker = player();
  speaker.sound("a", ramp(10));
  speaker.end("a");
  assert.deepEqual(speaker.run(1).subarray(0, 10), ramp(10));
  assert.equal(speaker.last("ended").item, "a");
});

test("progress comes every 50 ms and tells sound from silence", () => {
  const speaker = player();
  speaker.sound("a", Float32Array.from([...loud(400), ...new Float32Array(1200)]));
  speaker.run(8);
  const progress = speaker.sent.filter(({ type }) => type === "progress");
  assert.deepEqual(progress.map(({ played }) => played), [512, 1024]);
  assert.deepEqual(progress.map(({ audible }) => audible), [400, 400]);
  assert.ok(Math.abs(progress[0].level - 0.5 * Math.sqrt(400 / 512)) < 1e-6);
  assert.equal(progress[1].level, 0);
});

test("running dry is counted once and waits for a larger buffer", () => {
  const speaker = player();
  speaker.sound("a", loud(512));
  speaker.run(10);
  speaker.sound("a", loud(512));
  assert.ok(speaker.run(4).every((x) => x === 0), "less than the 100 ms it now wants");
  speaker.sound("a", loud(512));
  assert.equal(speaker.run(8).filter((x) => x === 0.5).length, 1024);
  assert.equal(speaker.last("progress").underruns, 1);
  assert.equal(speaker.last("progress").played, 1536);
});

test("items follow each other without a gap", () => {
  const speaker = player();
  speaker.sound("a", ramp(200));
  speaker.end("a");
  speaker.sound("b", ramp(200, 201));
  speaker.end("b");
  assert.deepEqual(speaker.run(4).subarray(0, 400), ramp(400));
  const ended = speaker.sent.filter(({ type }) => type === "ended");
  assert.deepEqual(ended.map(({ item, played }) => [item, played]), [["a", 200], ["b", 200]]);
});

test("a flush fades out within 8 ms and says how much was played", () => {
  const speaker = player();
  speaker.sound("a", loud(4000));
  speaker.sound("b", loud(4000));
  speaker.run(5);
  speaker.flush();
  assert.deepEqual(speaker.last("flushed"), { type: "flushed", item: "a", played: 5 * BLOCK });
  const heard = speaker.run(20);
  assert.equal(heard[0], 0.5);
  for (let at = 1; at < 64; at++) assert.ok(heard[at] < heard[at - 1], "it only gets quieter");
  assert.ok(heard.subarray(64).every((x) => x === 0), "nothing queued sounds any more");
});

test("a flush before the item began has played nothing of it", () => {
  const speaker = player();
  speaker.sound("a", loud(100));
  speaker.run(2);
  speaker.flush();
  assert.deepEqual(speaker.last("flushed"), { type: "flushed", item: "a", played: 0 });
  assert.ok(speaker.run(3).every((x) => x === 0));
});

test("a flush of nothing says so, and what comes next is played from its beginning", () => {
  const speaker = player();
  speaker.flush();
  assert.equal(speaker.last("flushed").item, null);
  speaker.sound("b", ramp(500));
  assert.deepEqual(speaker.run(3), ramp(3 * BLOCK));
});
