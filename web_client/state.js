// @ts-check
/** Whose turn it is, in one word for the style sheet and one sentence for the user. Pure. */

/**
 * @typedef {object} Facts
 * @property {import("./client.js").Link} link
 * @property {string} reason why the server refuses, if it said so
 * @property {"off" | "asking" | "on" | "muted"} microphone
 * @property {boolean} hearing
 * @property {boolean} waiting
 * @property {boolean} speaking
 */

/**
 * @param {Facts} facts
 * @returns {{ state: string, sentence: string }}
 */
export function describe({ link, reason, microphone, hearing, waiting, speaking }) {
  if (link === "connecting") return { state: "connecting", sentence: "Connecting …" };
  if (link === "locked") return { state: "locked", sentence: "This server asks for its key." };
  if (link === "offline") {
    const why = reason || "The server cannot be reached.";
    return { state: "offline", sentence: `${why} Trying again …` };
  }
  if (microphone === "asking") {
    return { state: "asking", sentence: "Allow the microphone in the browser’s question." };
  }
  if (hearing && microphone === "on") return { state: "hearing", sentence: "You are speaking" };
  if (speaking) {
    const hint = microphone === "on" ? ": interrupt whenever you like" : "";
    return { state: "speaking", sentence: `Speaking${hint}` };
  }
  if (waiting) return { state: "thinking", sentence: "Thinking …" };
  if (microphone === "muted") return { state: "muted", sentence: "Muted: nothing is sent" };
  if (microphone === "on") return { state: "listening", sentence: "Listening" };
  return { state: "ready", sentence: "Press the circle and talk" };
}

/** What a press of the round button does now. @param {Facts["microphone"]} microphone */
export function buttonLabel(microphone) {
  if (microphone === "on") return "Mute";
  return microphone === "muted" ? "Unmute" : "Start talking";
}

const PARTS = { vad: "hearing you", asr: "understanding you", llm: "answering", tts: "the voice" };

/** Another engine serves. @param {import("./codec.js").Event} event of type ivas.engines */
export function describeChange({ kind, reason }) {
  const part = PARTS[/** @type {keyof typeof PARTS} */ (kind)] ?? kind;
  return `New for ${part}: ${reason}`;
}
