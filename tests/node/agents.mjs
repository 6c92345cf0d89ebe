/**
 * Drives @openai/agents-realtime, unchanged, through one scenario and reports what it saw.
 *
 *     node agents.mjs SCENARIO URL PCM [KEY]
 *
 * PCM: a file of a spoken question, PCM16 at 24 kHz. KEY: connect as a browser would, with
 * this client secret in the subprotocols. The report is one JSON object on stdout; whatever
 * goes wrong is in its `failures`.
 */
import { readFileSync } from "node:fs";
import {
  OpenAIRealtimeWebSocket,
  RealtimeAgent,
  RealtimeSession,
  tool,
} from "@openai/agents-realtime";
import WebSocket from "ws";
import { z } from "zod";

const FRAME_MS = 20;
const FRAME_BYTES = 48 * FRAME_MS;
const DEADLINE_MS = 45_000;

const [scenario, url, pcmFile, key] = process.argv.slice(2);
const question = readFileSync(pcmFile);
const failures = [];
process.on("uncaughtException", (error) => failures.push(`uncaught: ${error.stack}`));
process.on("unhandledRejection", (error) => failures.push(`unhandled: ${error?.stack ?? error}`));

// --- a microphone, a loudspeaker, an eye on the events -----------------------------

/** A microphone that is always on: silence, and whatever it is told to say, in real time. */
class Microphone {
  #speech = Buffer.alloc(0);
  #sent = 0;

  constructor(session) {
    const begun = performance.now();
    this.timer = setInterval(() => {
      while (this.#sent * FRAME_MS <= performance.now() - begun) {
        this.#sent += 1;
        const frame = Buffer.alloc(FRAME_BYTES);
        this.#speech.copy(frame, 0, 0, FRAME_BYTES);
        this.#speech = this.#speech.subarray(FRAME_BYTES);
        session.sendAudio(frame.buffer.slice(frame.byteOffset, frame.byteOffset + FRAME_BYTES));
      }
    }, FRAME_MS / 2);
  }

  say(pcm) {
    this.#speech = pcm;
  }

  off() {
    clearInterval(this.timer);
  }
}

/** Resolves once something came that makes this true. */
function until(condition) {
  return new Promise((resolve) => waiting.push([condition, resolve]));
}

const waiting = [];

function look() {
  for (const [condition, resolve] of waiting) if (condition()) resolve();
}

const asBrowser = {
  createWebSocket: async ({ url, apiKey }) =>
    new WebSocket(url, ["realtime", `openai-insecure-api-key.${apiKey}`, "openai-agents-sdk.0.20.0"]),
};
const weather = tool({
  name: "weather",
  description: "The weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `It is sunny in ${city}.`,
});
const agent = new RealtimeAgent({
  name: "Assistant",
  instructions: "Be brief.",
  tools: scenario === "tool" ? [weather] : [],
});
const transport = new OpenAIRealtimeWebSocket(key ? asBrowser : {});
const session = new RealtimeSession(agent, { transport });

const types = [];
const names = new Set();
const ids = new Map();
const understood = new Set();
const sounds = [];
const seen = { interruptions: 0, tools: [], truncated: [], statuses: [] };

transport.on("*", (event) => {
  types.push(event.type);
  ids.set(event.event_id, event.type);
  if (!names.has(event.type)) {
    names.add(event.type);
    // Only what its schema accepts does the SDK pass on under its own name.
    transport.on(event.type, (parsed) => understood.add(parsed.event_id));
  }
  if (event.type === "error") failures.push(`error event: ${JSON.stringify(event)}`);
  if (event.type === "conversation.item.truncated") seen.truncated.push(event);
  if (event.type === "response.done") seen.statuses.push(event.response.status);
  setImmediate(look); // when the SDK has seen it too
});
session.on("error", (error) => failures.push(`error: ${JSON.stringify(error)}`));
session.on("audio", (event) => {
  sounds.push(Buffer.from(event.data));
  look();
});
session.on("audio_interrupted", () => (seen.interruptions += 1));
session.on("agent_tool_end", (_context, _agent, which, result) =>
  seen.tools.push([which.name, result]),
);

// --- scenarios ---------------------------------------------------------------------

const count = (type) => types.filter((each) => each === type).length;
const replies = (number) => until(() => seen.statuses.length === number);
const heardMs = () => sounds.reduce((sum, piece) => sum + piece.length, 0) / 48;
/** The SDK asks for an item anew when its words are known or cut. */
const retrieved = (number) => until(() => count("conversation.item.retrieved") === number);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const scenarios = {
  async voice(microphone) {
    microphone.say(question);
    await Promise.all([replies(1), retrieved(1)]);
  },

  async bargeIn(microphone) {
    microphone.say(question);
    await until(() => heardMs() > 2000);
    microphone.say(question);
    await Promise.all([replies(2), retrieved(3)]); // two questions, one reply cut short
  },

  async tool() {
    session.sendMessage("What is the weather in Paris?");
    await replies(2);
  },

  async text() {
    session.sendMessage("Hello.");
    await replies(1);
  },

  /** The client stops the reply by itself, then goes on. */
  async interrupt() {
    session.sendMessage("Hello.");
    await until(() => heardMs() > 0);
    await pause(1000); // somebody listens
    session.interrupt();
    await retrieved(1);
    session.sendMessage("Hello again.");
    await replies(2);
  },
};

// --- the run -----------------------------------------------------------------------

let microphone;
const deadline = setTimeout(() => {
  failures.push(`nothing more came within ${DEADLINE_MS} ms`);
  end();
}, DEADLINE_MS);

function end() {
  clearTimeout(deadline);
  microphone?.off();
  const lost = [...ids].filter(([id]) => !understood.has(id)).map(([, type]) => type);
  const report = {
    failures,
    lost,
    types,
    ...seen,
    history: session.history,
    sound: Buffer.concat(sounds).toString("base64"),
  };
  session.close();
  process.stdout.write(JSON.stringify(report), () => process.exit(0));
}

try {
  await session.connect({ apiKey: key ?? "none", url });
  await until(() => count("session.updated") > 0);
  microphone = new Microphone(session);
  await scenarios[scenario](microphone);
  // Until the server has answered whatever the SDK sent at the last event.
  const updates = count("session.updated");
  await transport.updateSessionConfig({});
  await until(() => count("session.updated") > updates);
} catch (error) {
  failures.push(`thrown: ${error.stack}`);
}
end();
