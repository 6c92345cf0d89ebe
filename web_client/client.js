// @ts-check
/**
 * The connection: one WebSocket to /v1/realtime, made again whenever it is lost.
 *
 * It knows nothing of conversations. What the server says goes to `onEvent`, and how
 * the connection stands to `onLink`.
 */

import { parse } from "./codec.js";

const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const CONGESTED_BYTES = 256 * 1024; // five seconds of microphone
const KEY = "ivas.key";

/**
 * connecting  an attempt the user waits for
 * open        the server has answered
 * offline     it cannot be reached, or refuses for `reason`; tried again by itself
 * locked      it wants a key, or another one
 * @typedef {"connecting" | "open" | "offline" | "locked"} Link
 */

export class Client {
  /**
   * @param {{
   *   onEvent: (event: import("./codec.js").Event) => void,
   *   onLink: (link: Link, reason: string) => void,
   * }} on
   */
  constructor({ onEvent, onLink }) {
    this._onEvent = onEvent;
    this._onLink = onLink;
    /** @type {WebSocket | null} */
    this._socket = null;
    this._attempts = 0;
    this._timer = 0;
    this._locked = false;
    this._greeted = false;
    this._reason = "";
  }

  /** Connect now, whatever was planned. */
  connect() {
    this._attempts = 0;
    this._onLink("connecting", "");
    this._try();
  }

  _try() {
    clearTimeout(this._timer);
    this._drop();
    this._locked = this._greeted = false;
    this._reason = "";
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const key = sessionStorage.getItem(KEY);
    const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : ["realtime"];
    try {
      const url = `${scheme}://${location.host}/v1/realtime?model=ivas`;
      this._socket = new WebSocket(url, protocols);
    } catch {
      this._lock(); // the key holds characters that no header may hold
      return;
    }
    this._socket.onmessage = ({ data }) => this._receive(data);
    this._socket.onclose = () => this._lost();
  }

  /** Keep a key for this tab and connect with it. @param {string} key */
  useKey(key) {
    sessionStorage.setItem(KEY, key);
    this.connect();
  }

  /**
   * @param {import("./codec.js").Event} event
   * @returns {boolean} whether it was sent
   */
  send(event) {
    if (this._socket?.readyState !== WebSocket.OPEN) return false;
    this._socket.send(JSON.stringify(event));
    return true;
  }

  /** More waits to be sent than a live conversation can use: leave sound out. */
  get congested() {
    return (this._socket?.bufferedAmount ?? 0) > CONGESTED_BYTES;
  }

  /** @param {unknown} frame */
  _receive(frame) {
    const event = parse(frame);
    if (!event) return;
    if (event.type === "error" && event.error?.code === "invalid_api_key") {
      this._lock();
      return;
    }
    if (event.type === "session.created") {
      this._greeted = true;
      this._attempts = 0;
      this._onLink("open", "");
    } else if (event.type === "error" && !this._greeted) {
      this._reason = event.error?.message ?? ""; // a refusal; the socket closes now
      return;
    }
    this._onEvent(event);
  }

  _lock() {
    this._locked = true;
    sessionStorage.removeItem(KEY);
    this._onLink("locked", "");
  }

  _lost() {
    this._socket = null;
    if (this._locked) return;
    const retryMs = RETRY_MS[Math.min(this._attempts, RETRY_MS.length - 1)];
    this._attempts += 1;
    // Spread out, so that a server that comes back is not met by everybody at once.
    this._timer = setTimeout(() => this._try(), retryMs * (0.8 + 0.4 * Math.random()));
    this._onLink("offline", this._reason);
  }

  _drop() {
    if (!this._socket) return;
    this._socket.onmessage = this._socket.onclose = null;
    this._socket.close();
    this._socket = null;
  }
}
