// @ts-check
/**
 * What has been said and whose turn it is, as this page knows it from the server's
 * events and from its own speaker. Pure: no DOM, no sockets, no clock. What has to be
 * done about it goes out through `Ports`.
 */

import {
  WIRE_RATE_HZ,
  cancelResponse,
  createItem,
  createResponse,
  fromAudio,
  truncateItem,
} from "./codec.js";
import { Cues } from "./cues.js";

/**
 * One caption. `text` is what was said or heard so far, `unheard` what was cut off and
 * `why`. `live`: more will come.
 * @typedef {object} Row
 * @property {string} id
 * @property {"user" | "assistant"} role
 * @property {string} text
 * @property {string} unheard
 * @property {string} why
 * @property {boolean} live
 */

/**
 * @typedef {object} Ports
 * @property {(event: import("./codec.js").Event) => void} send
 * @property {(item: string, pcm: Int16Array) => void} play
 * @property {(item: string) => void} end no more sound will come for the item
 * @property {() => void} flush silence the speaker; `flushed` is told what it cut off
 * @property {(sentence: string) => void} complain
 */

const INTERRUPTED = "You interrupted here";
const DISCONNECTED = "The connection was lost here";

/** Errors that only say that something was over already. */
const HARMLESS = new Set(["response_cancel_not_active", "item_truncate_invalid_item_id"]);

const TRANSCRIPTION = "conversation.item.input_audio_transcription";

export class Conversation {
  /** @param {Ports} ports */
  constructor(ports) {
    this._ports = ports;
    /** @type {Row[]} in order */
    this.rows = [];
    /** The user is speaking. */
    this.hearing = false;
    /** The user has finished, and no answer sounds yet. */
    this.waiting = false;
    /** The item that sounds or is about to. @type {string | null} */
    this.speaking = null;
    /** The reply in progress on the wire. @type {string | null} */
    this._response = null;
    /** Replies whose late events are to be ignored. @type {Set<string>} */
    this._dropped = new Set();
    /** @type {Map<string, Cues>} of assistant rows not yet heard to their end */
    this._cues = new Map();
    /** Items that the speaker was told to drop. @type {string[]} */
    this._doomed = [];
    this._why = INTERRUPTED; // the speaker was silenced
    /** A reply has to be asked for once the one in progress is over. */
    this._owed = false;
    /** The utterance that has no committed turn yet. @type {string | null} */
    this._utterance = null;
    this._typed = 0;
  }

  // --- from the server -------------------------------------------------------

  /** @param {import("./codec.js").Event} event */
  handle(event) {
    if (this._dropped.has(event.response_id)) return;
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        this.forgetUtterance();
        this.interrupt();
        this._utterance = event.item_id;
        this.hearing = true;
        this.waiting = false;
        break;
      case "input_audio_buffer.speech_stopped":
        this.hearing = false;
        this.waiting = true;
        break;
      case "input_audio_buffer.committed":
        this._utterance = null;
        this.hearing = false;
        this._row(event.item_id, "user", event.previous_item_id);
        break;
      case `${TRANSCRIPTION}.delta`:
        this._row(event.item_id, "user").text += event.delta;
        break;
      case `${TRANSCRIPTION}.completed`:
        this._finish(this._row(event.item_id, "user"), event.transcript.trim());
        break;
      case `${TRANSCRIPTION}.failed`:
        this._finish(this._row(event.item_id, "user"), "");
        this._ports.complain(event.error?.message || "Your words were lost; please say them again.");
        break;
      case "response.created":
        this._response = event.response.id;
        this.waiting = true;
        break;
      case "response.done":
        this._done(event.response);
        break;
      case "error":
        if (HARMLESS.has(event.error?.code)) break;
        if (event.error?.code === "conversation_already_has_active_response") {
          this._owed = true; // it began before the server knew of the message just typed
          break;
        }
        this.waiting = this._response !== null;
        this._ports.complain(event.error?.message || "The server reported an error; please try again.");
        break;
      default:
        this._hearReply(event);
    }
  }

  /** @param {import("./codec.js").Event} event */
  _hearReply(event) {
    switch (event.type) {
      case "response.output_audio_transcript.delta":
        this._words(event.item_id).addText(event.delta);
        break;
      case "response.output_audio.delta": {
        const pcm = fromAudio(event.delta);
        this._words(event.item_id).addSound((pcm.length / WIRE_RATE_HZ) * 1000);
        this.speaking = event.item_id;
        this._ports.play(event.item_id, pcm);
        break;
      }
      case "response.output_audio.done":
        this._cues.get(event.item_id)?.complete();
        if (this.speaking === event.item_id) this._ports.end(event.item_id);
        break;
      case "response.output_text.delta": // this page cannot play sound
        this._row(event.item_id, "assistant").text += event.delta;
        break;
      case "response.output_text.done":
        this._finish(this._row(event.item_id, "assistant"), event.text);
        break;
    }
  }

  /** @param {any} response */
  _done(response) {
    this._dropped.delete(response.id);
    if (this._owed) {
      this._owed = false;
      this._ports.send(createResponse());
    }
    if (this._response !== response.id) return;
    this._response = null;
    this.waiting = this.undecided;
    if (response.status === "cancelled") {
      this.interrupt();
      return;
    }
    if (response.status === "failed") {
      const why = response.status_details?.error?.message;
      this._ports.complain(why || "The reply failed; please ask again.");
    }
    // Words that never got a sound are shown as they are.
    for (const { id } of response.output ?? []) {
      if (this.speaking !== id) this._reveal(id, Infinity, true);
    }
  }

  // --- from the speaker ------------------------------------------------------

  /** So much of the item has sounded. @param {string} item @param {number} playedMs */
  played(item, playedMs) {
    if (this.speaking === null) return; // it was silenced meanwhile
    this.waiting = false;
    this._reveal(item, playedMs, false);
  }

  /** All of the item has sounded. @param {string} item */
  ended(item) {
    if (this.speaking === item) this.speaking = null;
    this._reveal(item, Infinity, true);
  }

  /**
   * The speaker has been silenced, within the item unless that is null.
   * @param {string | null} item @param {number} heardMs of it
   */
  flushed(item, heardMs) {
    for (const doomed of this._doomed) {
      const cues = this._cues.get(doomed);
      if (!cues) continue; // it ended before the flush reached the speaker
      const ms = doomed === item ? heardMs : 0;
      if (cues.sounds) this._ports.send(truncateItem(doomed, ms));
      this._reveal(doomed, ms, true);
      const row = this._row(doomed, "assistant");
      row.unheard = cues.text.slice(row.text.length);
      row.why = this._why;
    }
    this._doomed = [];
  }

  // --- from the user ---------------------------------------------------------

  /** Fall silent: what is being said, and what is being made. @param {string} [why] */
  interrupt(why = INTERRUPTED) {
    if (this._response !== null) {
      this._dropped.add(this._response);
      this._response = null;
    }
    for (const row of this.rows) {
      if (row.role === "assistant") row.live = false;
    }
    this.speaking = null;
    this.waiting = false;
    if (this._cues.size === 0) return;
    this._doomed = [...this._cues.keys()];
    this._why = why;
    this._ports.flush();
  }

  /** The stop button. */
  stop() {
    if (this._response !== null) this._ports.send(cancelResponse(this._response));
    this.interrupt();
  }

  /** Say something by typing it. @param {string} text */
  type(text) {
    this.stop();
    this._typed += 1;
    const id = `typed_${this._typed}`;
    this._finish(this._row(id, "user"), text);
    this._ports.send(createItem({ id, role: "user", text }));
    this._ports.send(createResponse());
    this.waiting = true;
  }

  /** The utterance that was not committed was no speech, or is lost: take it back. */
  forgetUtterance() {
    if (this._utterance === null) return;
    this.rows = this.rows.filter(({ id }) => id !== this._utterance);
    this._utterance = null;
    this.hearing = this.waiting = false;
  }

  /** The connection is lost: what was under way will not go on. */
  disconnected() {
    this.forgetUtterance();
    this.interrupt(DISCONNECTED);
    this._dropped.clear();
    this._owed = false;
    for (const row of this.rows) row.live = false;
  }

  /** A new connection: tell the server, which has forgotten, what was said. */
  replay() {
    for (const { id, role, text } of this.rows) {
      if (text) this._ports.send(createItem({ id, role, text }));
    }
  }

  /** Something sounds or is being made that can be stopped. */
  get stoppable() {
    return this.speaking !== null || this._response !== null;
  }

  /** The user has finished speaking and the server has not said whether it was a turn. */
  get undecided() {
    return this._utterance !== null && !this.hearing;
  }

  // --- captions --------------------------------------------------------------

  /**
   * The caption of an item, made if need be behind the item before it.
   * @param {string} id @param {"user" | "assistant"} role @param {string | null} [previous]
   */
  _row(id, role, previous) {
    const known = this.rows.find((row) => row.id === id);
    if (known) return known;
    const row = { id, role, text: "", unheard: "", why: "", live: true };
    const before = this.rows.findIndex((other) => other.id === previous);
    this.rows.splice(before < 0 ? this.rows.length : before + 1, 0, row);
    return row;
  }

  /** @param {Row} row @param {string} text */
  _finish(row, text) {
    row.text = text;
    row.live = false;
  }

  /** @param {string} item */
  _words(item) {
    let cues = this._cues.get(item);
    if (!cues) {
      this._row(item, "assistant");
      this._cues.set(item, (cues = new Cues()));
    }
    return cues;
  }

  /** @param {string} item @param {number} playedMs @param {boolean} final */
  _reveal(item, playedMs, final) {
    const cues = this._cues.get(item);
    if (!cues) return;
    const row = this._row(item, "assistant");
    row.text = playedMs === Infinity ? cues.text : cues.heard(playedMs);
    if (!final) return;
    row.live = false;
    this._cues.delete(item);
  }
}
