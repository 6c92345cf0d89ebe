// What the page makes of the server's events and of its own speaker.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Conversation } from "../../web_client/conversation.js";
import { Cues } from "../../web_client/cues.js";

const SECOND = Buffer.alloc(48_000).toString("base64"); // of sound

let conversation, sent, played, ended, flushes, complaints;

beforeEach(() => {
  [sent, played, ended, complaints] = [[], [], [], []];
  flushes = 0;
  conversation = new Conversation({
    send: (event) => sent.push(event),
    play: (item) => played.push(item),
    end: (item) => ended.push(item),
    flush: () => (flushes += 1),
    complain: (sentence) => complaints.push(sentence),
  });
});

const handle = (type, fields = {}) => conversation.handle({ type, ...fields });
const captions = () => conversation.rows.map(({ role, text, unheard }) => [role, text, unheard]);
const transcription = (kind, fields) =>
  handle(`conversation.item.input_audio_transcription.${kind}`, { item_id: "u1", ...fields });

function speak(item = "u1") {
  handle("input_audio_buffer.speech_started", { item_id: item });
  handle("input_audio_buffer.speech_stopped", { item_id: item });
}

function say(text, { item = "u1", previous = null } = {}) {
  speak(item);
  handle("input_audio_buffer.committed", { item_id: item, previous_item_id: previous });
  transcription("completed", { item_id: item, transcript: text });
}

/** A reply of three words of a second each, sent whole. */
function reply({ response = "r1", item = "a1", done = true } = {}) {
  const ids = { response_id: response, item_id: item };
  handle("response.created", { response: { id: response } });
  for (const delta of ["one", " two", " three"]) {
    handle("response.output_audio_transcript.delta", { ...ids, delta });
    handle("response.output_audio.delta", { ...ids, delta: SECOND });
  }
  if (!done) return;
  handle("response.output_audio.done", ids);
  handle("response.done", { response: { id: response, status: "completed", output: [{ id: item }] } });
}

test("a spoken turn: captions in order, words as they are heard", () => {
  handle("input_audio_buffer.speech_started", { item_id: "u1" });
  assert.equal(conversation.hearing, true);
  transcription("delta", { delta: "what" });
  transcription("delta", { delta: " is" });
  assert.deepEqual(captions(), [["user", "what is", ""]]);
  handle("input_audio_buffer.speech_stopped", { item_id: "u1" });
  assert.deepEqual([conversation.hearing, conversation.waiting], [false, true]);
  handle("input_audio_buffer.committed", { item_id: "u1", previous_item_id: null });
  transcription("completed", { transcript: " what is it " });
  reply();
  assert.deepEqual([played, ended], [["a1", "a1", "a1"], ["a1"]]);
  assert.deepEqual(captions(), [["user", "what is it", ""], ["assistant", "", ""]]);
  conversation.played("a1", 1500);
  assert.equal(conversation.waiting, false);
  assert.deepEqual(captions()[1], ["assistant", "one two", ""]);
  conversation.ended("a1");
  assert.deepEqual(captions()[1], ["assistant", "one two three", ""]);
  assert.deepEqual([conversation.speaking, conversation.stoppable], [null, false]);
  assert.deepEqual(conversation.rows.map(({ live }) => live), [false, false]);
  assert.deepEqual(sent, []);
});

test("a barge-in silences the speaker, says what was heard and strikes the rest", () => {
  say("go on");
  reply({ done: false });
  conversation.played("a1", 1200);
  handle("input_audio_buffer.speech_started", { item_id: "u2" });
  assert.equal(flushes, 1);
  conversation.flushed("a1", 1250.6);
  assert.deepEqual(sent, [
    { type: "conversation.item.truncate", item_id: "a1", content_index: 0, audio_end_ms: 1250 },
  ]);
  assert.deepEqual(captions()[1], ["assistant", "one two", " three"]);
  assert.deepEqual([conversation.hearing, conversation.speaking], [true, null]);
});

test("late sound of a cancelled reply is dropped, the next reply is not", () => {
  reply({ done: false });
  handle("input_audio_buffer.speech_started", { item_id: "u2" });
  const before = played.length;
  handle("response.output_audio.delta", { response_id: "r1", item_id: "a1", delta: SECOND });
  handle("response.output_audio.done", { response_id: "r1", item_id: "a1" });
  handle("response.done", { response: { id: "r1", status: "cancelled", output: [{ id: "a1" }] } });
  assert.deepEqual([played.length, ended, conversation.speaking], [before, [], null]);
  reply({ response: "r2", item: "a2" });
  assert.deepEqual(played.slice(before), ["a2", "a2", "a2"]);
});

test("a cut caption says why", () => {
  reply({ done: false });
  handle("input_audio_buffer.speech_started", { item_id: "u2" });
  conversation.flushed("a1", 500);
  reply({ response: "r2", item: "a2", done: false });
  conversation.disconnected();
  conversation.flushed("a2", 500);
  const cut = conversation.rows.filter(({ role }) => role === "assistant");
  assert.deepEqual(cut.map(({ why }) => why), ["You interrupted here", "The connection was lost here"]);
});

test("speech over nothing flushes nothing", () => {
  speak();
  assert.equal(flushes, 0);
});

test("speech over the tail of a finished reply cuts it too", () => {
  reply();
  conversation.played("a1", 500);
  handle("input_audio_buffer.speech_started", { item_id: "u2" });
  conversation.flushed("a1", 600);
  assert.equal(sent[0].audio_end_ms, 600);
});

test("a reply that ended just before the flush is not cut", () => {
  reply();
  handle("input_audio_buffer.speech_started", { item_id: "u2" });
  conversation.ended("a1");
  conversation.flushed(null, 0);
  assert.deepEqual(sent, []);
  assert.deepEqual(captions(), [["assistant", "one two three", ""]]);
});

test("what was queued behind the item that sounded was not heard at all", () => {
  reply();
  reply({ response: "r2", item: "a2" });
  conversation.stop();
  conversation.flushed("a1", 2500);
  assert.deepEqual(sent.map(({ item_id, audio_end_ms }) => [item_id, audio_end_ms]), [["a1", 2500], ["a2", 0]]);
  assert.deepEqual(captions()[1], ["assistant", "", "one two three"]);
});

test("a late report of a silenced item does not look like speech", () => {
  reply({ done: false });
  conversation.type("stop");
  conversation.played("a1", 900);
  assert.equal(conversation.waiting, true);
});

test("stop cancels what is made and silences what sounds", () => {
  reply({ done: false });
  assert.equal(conversation.stoppable, true);
  conversation.stop();
  assert.deepEqual(sent, [{ type: "response.cancel", response_id: "r1" }]);
  assert.deepEqual([flushes, conversation.stoppable], [1, false]);
  conversation.stop();
  assert.equal(sent.length, 1, "nothing is active any more");
});

test("the server's own cancel silences the speaker", () => {
  reply({ done: false });
  handle("response.done", { response: { id: "r1", status: "cancelled", output: [{ id: "a1" }] } });
  assert.deepEqual([flushes, conversation.speaking], [1, null]);
});

test("a typed turn interrupts, is shown at once and asks for a reply", () => {
  reply({ done: false });
  conversation.type("what time is it");
  assert.deepEqual(sent.map(({ type }) => type), [
    "response.cancel",
    "conversation.item.create",
    "response.create",
  ]);
  assert.deepEqual(captions().at(-1), ["user", "what time is it", ""]);
  assert.equal(conversation.waiting, true);
});

test("a reply that was already on its way delays the one asked for", () => {
  conversation.type("hello");
  handle("error", { error: { code: "conversation_already_has_active_response" } });
  assert.deepEqual([sent.length, complaints], [2, []]);
  handle("response.created", { response: { id: "r1" } });
  handle("response.done", { response: { id: "r1", status: "completed", output: [] } });
  assert.equal(sent.at(-1).type, "response.create");
  assert.equal(sent.length, 3);
});

test("noise that was no turn disappears", () => {
  speak();
  transcription("delta", { delta: "uh" });
  assert.deepEqual([conversation.undecided, captions()], [true, [["user", "uh", ""]]]);
  conversation.forgetUtterance();
  assert.deepEqual([conversation.undecided, conversation.waiting, captions()], [false, false, []]);
});

test("the next utterance takes an undecided one back, a committed one stays", () => {
  speak("noise");
  transcription("delta", { item_id: "noise", delta: "uh" });
  say("hello", { item: "u2" });
  handle("input_audio_buffer.speech_started", { item_id: "u3" });
  assert.deepEqual(captions(), [["user", "hello", ""]]);
});

test("a turn is placed behind the item the server names", () => {
  say("first");
  reply();
  speak("u2");
  conversation.type("typed meanwhile");
  handle("input_audio_buffer.committed", { item_id: "u2", previous_item_id: "a1" });
  assert.deepEqual(conversation.rows.map(({ id }) => id), ["u1", "a1", "u2", "typed_1"]);
});

test("failures are said in the server's words", () => {
  say("hello");
  transcription("failed", { error: { message: "The words were lost." } });
  handle("response.created", { response: { id: "r1" } });
  const details = { error: { message: "The voice failed." } };
  handle("response.done", { response: { id: "r1", status: "failed", status_details: details } });
  handle("error", { error: { code: "server_error", message: "Something broke." } });
  assert.deepEqual(complaints, ["The words were lost.", "The voice failed.", "Something broke."]);
  assert.equal(conversation.waiting, false);
});

test("errors about what is over already are kept from the user", () => {
  for (const code of ["response_cancel_not_active", "item_truncate_invalid_item_id"]) {
    handle("error", { error: { code, message: "no" } });
  }
  assert.deepEqual(complaints, []);
});

test("words without sound are shown when the reply is done", () => {
  handle("response.created", { response: { id: "r1" } });
  const ids = { response_id: "r1", item_id: "a1" };
  handle("response.output_audio_transcript.delta", { ...ids, delta: "silent" });
  handle("response.done", { response: { id: "r1", status: "completed", output: [{ id: "a1" }] } });
  assert.deepEqual(captions(), [["assistant", "silent", ""]]);
});

test("a reply as text is shown as it comes", () => {
  const ids = { response_id: "r1", item_id: "a1" };
  handle("response.created", { response: { id: "r1" } });
  handle("response.output_text.delta", { ...ids, delta: "so" });
  handle("response.output_text.delta", { ...ids, delta: " it is" });
  assert.deepEqual(captions(), [["assistant", "so it is", ""]]);
  handle("response.output_text.done", { ...ids, text: "so it is." });
  assert.deepEqual([captions(), conversation.rows[0].live], [[["assistant", "so it is.", ""]], false]);
});

test("after a lost connection the new one is told what was said and heard", () => {
  say("hello");
  reply({ done: false });
  handle("input_audio_buffer.speech_started", { item_id: "u2" });
  conversation.flushed("a1", 500);
  conversation.disconnected();
  sent.length = 0;
  conversation.replay();
  const items = sent.map(({ item }) => [item.id, item.role, item.content[0].text]);
  assert.deepEqual(items, [["u1", "user", "hello"], ["a1", "assistant", "one"]]);
});

test("cues spread words over their own sound and keep words whole", () => {
  const cues = new Cues();
  cues.addText("alpha beta");
  cues.addText(" gamma.");
  cues.addSound(1000);
  cues.addText(" Delta.");
  cues.addSound(500);
  assert.equal(cues.text, "alpha beta gamma. Delta.");
  assert.equal(cues.heard(0), "");
  assert.equal(cues.heard(1), "alpha");
  assert.equal(cues.heard(500), "alpha beta");
  assert.equal(cues.heard(1000), "alpha beta gamma.");
  cues.complete();
  assert.equal(cues.heard(1500), cues.text);
  let before = "";
  for (let ms = 0; ms <= 1500; ms += 10) {
    const heard = cues.heard(ms);
    assert.ok(heard.startsWith(before), "words are never taken back");
    before = heard;
  }
});

test("cues whose sound is still coming are not run ahead of", () => {
  const cues = new Cues();
  cues.addText("a clause of forty characters, more or less");
  cues.addSound(100);
  assert.ok(cues.heard(100).length < 10);
});
