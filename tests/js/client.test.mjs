// The connection, on a stand-in for the browser: made again when lost, locked by a key.
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Client } from "../../web_client/client.js";

class FakeSocket {
  static OPEN = 1;
  static all = [];
  constructor(url, protocols) {
    if (protocols.some((protocol) => /\s/.test(protocol))) throw new SyntaxError("bad protocol");
    Object.assign(this, { url, protocols, readyState: 1, bufferedAmount: 0, sent: [] });
    FakeSocket.all.push(this);
  }
  send(frame) {
    this.sent.push(JSON.parse(frame));
  }
  close() {
    this.readyState = 3;
  }
  say(event) {
    this.onmessage({ data: JSON.stringify(event) });
  }
  lose() {
    this.readyState = 3;
    this.onclose({});
  }
}

const CREATED = { type: "session.created", session: {} };
const kept = new Map();
globalThis.WebSocket = FakeSocket;
globalThis.location = { protocol: "https:", host: "ivas.example:8000" };
globalThis.sessionStorage = {
  getItem: (name) => kept.get(name) ?? null,
  setItem: (name, value) => kept.set(name, value),
  removeItem: (name) => kept.delete(name),
};
let client, links, events;

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  FakeSocket.all = [];
  kept.clear();
  [links, events] = [[], []];
  client = new Client({
    onEvent: (event) => events.push(event),
    onLink: (link, reason) => links.push(reason ? `${link}: ${reason}` : link),
  });
  client.connect();
});

const socket = () => FakeSocket.all.at(-1);

test("it connects to the server the page came from", () => {
  assert.equal(socket().url, "wss://ivas.example:8000/v1/realtime?model=ivas");
  assert.deepEqual(socket().protocols, ["realtime"]);
  socket().say(CREATED);
  socket().say({ type: "anything" });
  socket().onmessage({ data: "not json" });
  assert.deepEqual(links, ["connecting", "open"]);
  assert.deepEqual(events.map(({ type }) => type), ["session.created", "anything"]);
});

test("events are sent while it is connected, and not otherwise", () => {
  assert.equal(client.send({ type: "x" }), true);
  assert.deepEqual(socket().sent, [{ type: "x" }]);
  socket().lose();
  assert.equal(client.send({ type: "x" }), false);
});

test("it says when more waits than can be sent", () => {
  assert.equal(client.congested, false);
  socket().bufferedAmount = 1_000_000;
  assert.equal(client.congested, true);
});

test("a lost connection is made again, with longer and longer waits", () => {
  socket().say(CREATED);
  for (const atMostMs of [600, 1200, 2400, 4800, 9600, 9600]) {
    const before = FakeSocket.all.length;
    socket().lose();
    mock.timers.tick(atMostMs / 2);
    assert.equal(FakeSocket.all.length, before, "not too early");
    mock.timers.tick(atMostMs / 2);
    assert.equal(FakeSocket.all.length, before + 1);
  }
  socket().say(CREATED);
  socket().lose();
  mock.timers.tick(600);
  assert.equal(FakeSocket.all.length, 8, "success makes it eager again");
  assert.equal(links.filter((link) => link === "connecting").length, 1, "retries are quiet");
});

test("the user may connect at once", () => {
  socket().lose();
  client.connect();
  assert.equal(FakeSocket.all.length, 2);
  mock.timers.tick(60_000);
  assert.equal(FakeSocket.all.length, 2, "the planned attempt is not made as well");
});

test("a refusal is told with its reason and tried again", () => {
  socket().say({ type: "error", error: { code: "not_ready", message: "Still loading." } });
  socket().lose();
  assert.deepEqual(links, ["connecting", "offline: Still loading."]);
  assert.deepEqual(events, []);
  mock.timers.tick(600);
  assert.equal(FakeSocket.all.length, 2);
});

test("a wrong key is forgotten and asked for, not tried again", () => {
  kept.set("ivas.key", "wrong");
  socket().say({ type: "error", error: { code: "invalid_api_key" } });
  socket().lose();
  mock.timers.tick(60_000);
  assert.deepEqual([links, kept.size, FakeSocket.all.length], [["connecting", "locked"], 0, 1]);
  client.useKey("right");
  assert.deepEqual(socket().protocols, ["realtime", "openai-insecure-api-key.right"]);
  assert.equal(kept.get("ivas.key"), "right");
});

test("a key that no header can hold is asked for again", () => {
  client.useKey("two words");
  assert.deepEqual(links, ["connecting", "connecting", "locked"]);
  assert.equal(kept.size, 0);
});
