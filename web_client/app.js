// @ts-check
/**
 * The page: joins connection, microphone, speaker, conversation and view.
 *
 * What it shows of itself to tests is on <body>: data-state, data-microphone and, of
 * all sound so far, data-played-ms, data-audible-ms, data-underruns.
 */

import { MicrophoneError, openMicrophone } from "./audio/microphone.js";
import { Speaker } from "./audio/speaker.js";
import { Client } from "./client.js";
import { appendAudio, sessionUpdate } from "./codec.js";
import { Conversation } from "./conversation.js";
import { buttonLabel, describe, describeChange } from "./state.js";
import { element, showLevel, showNotice, showRows, showState } from "./view.js";

/** Longer than the server takes to recognise an utterance, or to give it up. */
const UNDECIDED_MS = 7000;

/** @type {import("./state.js").Facts["microphone"]} */
let microphone = "off";
/** @type {import("./client.js").Link} */
let link = "connecting";
let reason = "";
let audible = "AudioWorkletNode" in window; // only secure pages have it
let undecidedTimer = 0;

/** @type {AudioContext | null} */
let context = null;
/** @type {Promise<Speaker> | null} */
let opening = null;
/** @type {Speaker | null} */
let speaker = null;
/** @type {{ mute: (muted: boolean) => void } | null} */
let capture = null;

const heard = { playedMs: 0, audibleMs: 0 }; // of the items that have ended

const conversation = new Conversation({
  send: (event) => void client.send(event),
  play: (item, pcm) => speaker?.play(item, pcm),
  end: (item) => speaker?.end(item),
  flush: () => void flush(),
  complain: showNotice,
});

const client = new Client({
  onEvent(event) {
    if (event.type === "ivas.engines") showNotice(describeChange(event));
    conversation.handle(event);
    clearTimeout(undecidedTimer);
    if (conversation.undecided) undecidedTimer = setTimeout(giveUpUtterance, UNDECIDED_MS);
    show();
  },
  onLink(now, why) {
    if (now === "open") {
      client.send(sessionUpdate({ audible }));
      conversation.replay();
      showNotice("");
    } else if (link === "open") {
      conversation.disconnected();
    }
    [link, reason] = [now, why];
    show();
    if (now === "locked") element("key").focus();
  },
});

function show() {
  const { hearing, waiting, speaking, stoppable } = conversation;
  const facts = { link, reason, microphone, hearing, waiting, speaking: speaking !== null };
  const { state, sentence } = describe(facts);
  const label = buttonLabel(microphone);
  showState({ state, sentence, link, microphone, label, stoppable });
  showRows(conversation.rows);
}

function giveUpUtterance() {
  conversation.forgetUtterance();
  show();
}

// --- sound -------------------------------------------------------------------

function audioContext() {
  context ??= new AudioContext({ latencyHint: "interactive" });
  return context;
}

/** Make sound possible; called from a click or a key, which browsers ask for. */
async function openAudio() {
  if (!audible) return;
  try {
    opening ??= Speaker.open(audioContext(), { onProgress, onEnded });
    await audioContext().resume();
    speaker = await opening;
  } catch (error) {
    console.warn(error);
    audible = false;
    client.send(sessionUpdate({ audible }));
    showNotice("This browser could not open the speaker, so answers come as text only.");
  }
}

/** @param {import("./audio/speaker.js").Progress} progress */
function onProgress(progress) {
  conversation.played(progress.item, progress.playedMs);
  tell(progress);
  if (conversation.speaking !== null) showLevel(progress.level);
  show();
}

/** @param {import("./audio/speaker.js").Progress} progress */
function onEnded(progress) {
  conversation.ended(progress.item);
  tell(progress);
  heard.playedMs += progress.playedMs;
  heard.audibleMs += progress.audibleMs;
  showLevel(0);
  show();
}

/** @param {import("./audio/speaker.js").Progress} progress */
function tell({ playedMs, audibleMs, underruns }) {
  const { dataset } = document.body;
  dataset.playedMs = String(Math.round(heard.playedMs + playedMs));
  dataset.audibleMs = String(Math.round(heard.audibleMs + audibleMs));
  dataset.underruns = String(underruns);
}

async function flush() {
  const cut = speaker ? await speaker.flush() : { item: null, heardMs: 0 };
  conversation.flushed(cut.item, cut.heardMs);
  show();
}

// --- the user ----------------------------------------------------------------

async function pressTalk() {
  if (microphone === "asking") return;
  showNotice("");
  if (capture) {
    microphone = microphone === "on" ? "muted" : "on";
    capture.mute(microphone === "muted");
    showLevel(0);
    show();
    return;
  }
  microphone = "asking";
  show();
  try {
    await openAudio();
    capture = await openMicrophone(audioContext(), { onFrame, onLost });
    microphone = "on";
  } catch (error) {
    microphone = "off";
    if (!(error instanceof MicrophoneError)) console.warn(error);
    const known = error instanceof MicrophoneError ? error.message : "";
    showNotice(known || "Sound could not be started. Load the page again, or type.");
  } finally {
    show();
  }
}

/** @param {Int16Array} pcm @param {number} level */
function onFrame(pcm, level) {
  if (link === "open" && !client.congested) client.send(appendAudio(pcm));
  if (conversation.speaking === null) showLevel(level);
}

function onLost() {
  capture = null;
  microphone = "off";
  showNotice("The microphone is gone. Connect it and press the circle again, or type.");
  show();
}

/** @param {SubmitEvent} event */
async function submitMessage(event) {
  event.preventDefault();
  const field = element("message");
  const text = field.value.trim();
  if (!text || link !== "open") return;
  field.value = "";
  showNotice("");
  await openAudio();
  conversation.type(text);
  show();
}

function stop() {
  conversation.stop();
  show();
}

element("talk").addEventListener("click", pressTalk);
element("stop").addEventListener("click", stop);
element("compose").addEventListener("submit", submitMessage);
element("retry").addEventListener("click", () => client.connect());
element("dismiss").addEventListener("click", () => showNotice(""));
element("unlock").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  client.useKey(element("key").value.trim());
  element("key").value = "";
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
addEventListener("online", () => link === "offline" && client.connect());

client.connect();
