// @ts-check
/**
 * The words of the wire: base64 and PCM16, client events, server events.
 *
 * Pure and stateless. Audio on the wire is 24 kHz PCM16 little-endian mono; every
 * browser runs on little-endian machines, so Int16Array is that byte order.
 */

export const WIRE_RATE_HZ = 24000;

/**
 * @typedef {{ type: string, [key: string]: any }} Event
 * @typedef {{ id: string, role: "user" | "assistant", text: string }} Said
 */

/** @param {Uint8Array} bytes @returns {string} */
export function toBase64(bytes) {
  let binary = "";
  // In pieces: a long argument list would overflow the stack.
  for (let at = 0; at < bytes.length; at += 8192) {
    binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(binary);
}

/** @param {string} text @returns {Uint8Array} Throws on what is not base64. */
export function fromBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  return bytes;
}

/** @param {Float32Array} samples -1..1, beyond is clipped. @returns {Int16Array} */
export function toPcm16(samples) {
  const pcm = new Int16Array(samples.length);
  for (let at = 0; at < samples.length; at++) {
    pcm[at] = Math.round(Math.max(-1, Math.min(1, samples[at])) * 32767);
  }
  return pcm;
}

/** @param {Int16Array} pcm @returns {Float32Array} -1..1 */
export function toFloat(pcm) {
  const samples = new Float32Array(pcm.length);
  for (let at = 0; at < pcm.length; at++) samples[at] = pcm[at] / 32768;
  return samples;
}

/**
 * The sound of a `response.output_audio.delta`. Half a sample at the end is dropped.
 * @param {string} base64 @returns {Int16Array}
 */
export function fromAudio(base64) {
  const bytes = fromBase64(base64);
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}

// --- client events -----------------------------------------------------------

/**
 * @param {{ audible: boolean }} how `audible` false: this page cannot play sound.
 * @returns {Event}
 */
export function sessionUpdate({ audible }) {
  return {
    type: "session.update",
    session: {
      type: "realtime",
      output_modalities: [audible ? "audio" : "text"],
      audio: {
        input: {
          format: { type: "audio/pcm", rate: WIRE_RATE_HZ },
          transcription: {},
          turn_detection: { type: "semantic_vad" },
        },
        output: { format: { type: "audio/pcm", rate: WIRE_RATE_HZ } },
      },
      ivas: { events: ["engines"] },
    },
  };
}

/** @param {Int16Array} pcm @returns {Event} */
export function appendAudio(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  return { type: "input_audio_buffer.append", audio: toBase64(bytes) };
}

/**
 * A message of the conversation: new ones the user typed, old ones after a reconnect.
 * @param {Said} said @returns {Event}
 */
export function createItem({ id, role, text }) {
  const kind = role === "user" ? "input_text" : "output_text";
  return {
    type: "conversation.item.create",
    item: { id, type: "message", role, content: [{ type: kind, text }] },
  };
}

/** @returns {Event} */
export function createResponse() {
  return { type: "response.create" };
}

/** @param {string} responseId @returns {Event} */
export function cancelResponse(responseId) {
  return { type: "response.cancel", response_id: responseId };
}

/** @param {string} itemId @param {number} playedMs really heard @returns {Event} */
export function truncateItem(itemId, playedMs) {
  const ms = Math.max(0, Math.floor(playedMs));
  return { type: "conversation.item.truncate", item_id: itemId, content_index: 0, audio_end_ms: ms };
}

// --- server events -----------------------------------------------------------

/**
 * @param {unknown} frame the data of a WebSocket message
 * @returns {Event | null} null for anything that is no event
 */
export function parse(frame) {
  if (typeof frame !== "string") return null;
  try {
    const event = JSON.parse(frame);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}
