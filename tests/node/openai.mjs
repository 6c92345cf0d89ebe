/**
 * Drives the Realtime classes of openai-node, unchanged: a typed turn, heard.
 *
 *     node openai.mjs node|browser URL KEY
 *
 * URL: of the REST API; it has to be https, since these classes know no ws:. The report is
 * one JSON object on stdout; whatever goes wrong is in its `failures`.
 */
import OpenAI from "openai";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import WebSocket from "ws";

const DEADLINE_MS = 30_000;

const [which, baseURL, apiKey] = process.argv.slice(2);
const failures = [];
process.on("uncaughtException", (error) => failures.push(`uncaught: ${error.stack}`));
process.on("unhandledRejection", (error) => failures.push(`unhandled: ${error?.stack ?? error}`));

globalThis.WebSocket ??= WebSocket; // what a browser has, and node from 22 on
const client = new OpenAI({ apiKey, baseURL });
const realtime =
  which === "node"
    ? new OpenAIRealtimeWS({ model: "ivas" }, client)
    : new OpenAIRealtimeWebSocket({ model: "ivas" }, client);

const types = [];
const sounds = [];
const deadline = setTimeout(() => {
  failures.push(`nothing more came within ${DEADLINE_MS} ms`);
  end(null);
}, DEADLINE_MS);

function end(response) {
  clearTimeout(deadline);
  realtime.close();
  const sound = Buffer.concat(sounds).toString("base64");
  const report = JSON.stringify({ failures, types, response, sound });
  process.stdout.write(report, () => process.exit(0));
}

realtime.on("error", (error) => failures.push(`error: ${error.message}`));
realtime.on("event", (event) => types.push(event.type));
realtime.on("session.created", () =>
  realtime.send({ type: "session.update", session: { type: "realtime", instructions: "Be brief." } }),
);
realtime.on("session.updated", () => {
  const content = [{ type: "input_text", text: "Hello." }];
  realtime.send({
    type: "conversation.item.create",
    item: { type: "message", role: "user", content },
  });
  realtime.send({ type: "response.create" });
});
realtime.on("response.output_audio.delta", (event) => sounds.push(Buffer.from(event.delta, "base64")));
realtime.on("response.done", (event) => end(event.response));
