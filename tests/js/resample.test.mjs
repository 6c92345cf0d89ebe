// The resampler keeps pitch and loudness, removes what would alias, and does not care
// how its input is cut.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Resampler } from "../../web_client/audio/resample.js";

const RATES = [
  [48000, 24000],
  [44100, 24000],
  [16000, 24000],
  [24000, 48000],
  [24000, 44100],
  [96000, 24000],
];

const tone = (hz, rate, seconds) =>
  Float32Array.from({ length: rate * seconds }, (_, at) => Math.sin((2 * Math.PI * hz * at) / rate));

function whole(resampler, input) {
  const head = resampler.push(input);
  return Float32Array.from([...head, ...resampler.flush()]);
}

const rms = (samples) => Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);

for (const [from, to] of RATES) {
  test(`${from} to ${to} Hz keeps a tone where it was`, () => {
    const output = whole(new Resampler(from, to), tone(440, from, 0.5));
    assert.ok(Math.abs(output.length - to / 2) <= 2, `${output.length} samples`);
    const expected = tone(440, to, 0.5);
    const inner = output.subarray(100, to / 2 - 100);
    const error = inner.map((x, at) => x - expected[at + 100]);
    assert.ok(rms(error) < 0.003, `error ${rms(error)}`);
  });
}

test("what would alias is gone", () => {
  const output = whole(new Resampler(48000, 24000), tone(14000, 48000, 0.2));
  assert.ok(rms(output.subarray(100, -100)) < 0.01);
});

test("however the input is cut, the output is the same", () => {
  let seed = 1;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const input = Float32Array.from({ length: 5000 }, () => random() - 0.5);
  for (const [from, to] of RATES) {
    const expected = whole(new Resampler(from, to), input);
    const resampler = new Resampler(from, to);
    const output = [];
    for (let at = 0; at < input.length; ) {
      const size = Math.floor(random() * 300);
      output.push(...resampler.push(input.slice(at, at + size)));
      at += size;
    }
    output.push(...resampler.flush());
    assert.deepEqual(Float32Array.from(output), expected);
  }
});

test("after a reset nothing of the old stream is left", () => {
  const resampler = new Resampler(48000, 24000);
  resampler.push(tone(440, 48000, 0.01));
  resampler.reset();
  assert.ok(resampler.push(new Float32Array(480)).every((x) => x === 0));
});

test("equal rates pass through", () => {
  const resampler = new Resampler(24000, 24000);
  assert.deepEqual(resampler.push(Float32Array.of(1, 2)), Float32Array.of(1, 2));
  assert.equal(resampler.flush().length, 0);
});
