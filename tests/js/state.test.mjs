// One word and one sentence for every situation.
import assert from "node:assert/strict";
import { test } from "node:test";

import { buttonLabel, describe, describeChange } from "../../web_client/state.js";

const CALM = {
  link: "open",
  reason: "",
  microphone: "on",
  hearing: false,
  waiting: false,
  speaking: false,
};

for (const [state, facts] of [
  ["connecting", { link: "connecting" }],
  ["locked", { link: "locked" }],
  ["offline", { link: "offline", speaking: true }],
  ["asking", { microphone: "asking" }],
  ["ready", { microphone: "off" }],
  ["listening", {}],
  ["muted", { microphone: "muted", hearing: true }],
  ["hearing", { hearing: true, speaking: true, waiting: true }],
  ["thinking", { waiting: true }],
  ["thinking", { waiting: true, microphone: "off" }],
  ["speaking", { speaking: true, waiting: true, microphone: "muted" }],
]) {
  test(`${JSON.stringify(facts)} is ${state}`, () => {
    const shown = describe({ ...CALM, ...facts });
    assert.equal(shown.state, state);
    assert.ok(shown.sentence.length > 3);
  });
}

test("offline says why, if the server said so, and that it goes on trying", () => {
  assert.equal(describe({ ...CALM, link: "offline" }).sentence, "The server cannot be reached. Trying again …");
  const { sentence } = describe({ ...CALM, link: "offline", reason: "The engines are still loading." });
  assert.equal(sentence, "The engines are still loading. Trying again …");
});

test("the button says what a press does", () => {
  assert.deepEqual(["off", "on", "muted"].map(buttonLabel), ["Start talking", "Mute", "Unmute"]);
});

test("a change of engines is one sentence with what it is for", () => {
  const reason = "ollama is ready and takes over from builtin.";
  const change = { type: "ivas.engines", kind: "llm", reason };
  assert.equal(describeChange(change), `New for answering: ${reason}`);
  assert.equal(describeChange({ ...change, kind: "soul" }), `New for soul: ${reason}`);
});
