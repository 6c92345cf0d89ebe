// The wire's words: what goes in comes out, and what comes in is checked.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as codec from "../../web_client/codec.js";

test("base64 carries every byte, also more of them than fit an argument list", () => {
  const bytes = Uint8Array.from({ length: 200_001 }, (_, at) => (at * 7) % 256);
  const text = codec.toBase64(bytes);
  assert.equal(text, Buffer.from(bytes).toString("base64"));
  assert.deepEqual(codec.fromBase64(text), bytes);
});

test("audio is PCM16 little-endian both ways", () => {
  const { type, audio } = codec.appendAudio(Int16Array.of(0, 1, -2, 32767, -32768));
  assert.equal(type, "input_audio_buffer.append");
  assert.deepEqual([...Buffer.from(audio, "base64")], [0, 0, 1, 0, 254, 255, 255, 127, 0, 128]);
  assert.deepEqual(codec.fromAudio(audio), Int16Array.of(0, 1, -2, 32767, -32768));
});

test("a view into a larger buffer sends only itself", () => {
  const whole = Int16Array.of(1, 2, 3, 4);
  const { audio } = codec.appendAudio(whole.subarray(1, 3));
  assert.deepEqual(codec.fromAudio(audio), Int16Array.of(2, 3));
});

test("half a sample at the end of a delta is dropped", () => {
  assert.deepEqual(codec.fromAudio(Buffer.from([5, 0, 9]).toString("base64")), Int16Array.of(5));
});

test("samples are clipped, not wrapped", () => {
  assert.deepEqual(codec.toPcm16(Float32Array.of(0, 1, -1, 1.5, -7)), Int16Array.of(0, 32767, -32767, 32767, -32767));
  assert.deepEqual(codec.toFloat(Int16Array.of(0, -32768, 16384)), Float32Array.of(0, -1, 0.5));
});

test("only an object with a type is an event", () => {
  assert.deepEqual(codec.parse('{"type":"error","error":{}}'), { type: "error", error: {} });
  for (const frame of ["", "{", "null", "[]", "7", '{"type":1}', new ArrayBuffer(2), undefined]) {
    assert.equal(codec.parse(frame), null);
  }
});

test("a truncation is a whole number of milliseconds that is not negative", () => {
  assert.equal(codec.truncateItem("i", 12.9).audio_end_ms, 12);
  assert.equal(codec.truncateItem("i", -3).audio_end_ms, 0);
  assert.equal(codec.truncateItem("i", 5).content_index, 0);
});

test("a replayed message has the content type of its role", () => {
  const kind = (role) => codec.createItem({ id: "i", role, text: "t" }).item.content[0].type;
  assert.deepEqual([kind("user"), kind("assistant")], ["input_text", "output_text"]);
});

test("a page that cannot play asks for text", () => {
  const modalities = (audible) => codec.sessionUpdate({ audible }).session.output_modalities;
  assert.deepEqual([modalities(true), modalities(false)], [["audio"], ["text"]]);
  assert.deepEqual(codec.sessionUpdate({ audible: true }).session.ivas, { events: ["engines"] });
});
