// @ts-check
/** The microphone: asks for it, and turns it into frames of wire audio. */

import { WIRE_RATE_HZ, toPcm16 } from "../codec.js";
import { Resampler } from "./resample.js";

const FRAME_S = 0.03;

/** Why there is no microphone, as a sentence for the user. */
export class MicrophoneError extends Error {}

/**
 * Ask for the microphone and start it.
 * @param {AudioContext} context
 * @param {{ onFrame: (pcm: Int16Array, level: number) => void, onLost: () => void }} on
 *   `onFrame`: 30 ms at 24 kHz and its RMS, 0..1. `onLost`: unplugged or withdrawn.
 * @returns {Promise<{ mute: (muted: boolean) => void }>}
 * @throws {MicrophoneError}
 */
export async function openMicrophone(context, { onFrame, onLost }) {
  if (!window.isSecureContext || !navigator.mediaDevices || !context.audioWorklet) {
    throw new MicrophoneError(
      "Browsers give the microphone to secure pages only. Open this page over https, or as " +
        "http://localhost on the server’s own machine. You can type meanwhile.",
    );
  }
  const stream = await ask();
  await context.audioWorklet.addModule(new URL("../worklets/capture.js", import.meta.url));
  const node = new AudioWorkletNode(context, "capture", {
    numberOfOutputs: 0,
    channelCount: 1,
    channelCountMode: "explicit",
    processorOptions: { frameSamples: Math.round(FRAME_S * context.sampleRate) },
  });
  const resampler = new Resampler(context.sampleRate, WIRE_RATE_HZ);
  let muted = false;
  node.port.onmessage = ({ data }) => {
    if (!muted) onFrame(toPcm16(resampler.push(data)), rms(data));
  };
  const source = context.createMediaStreamSource(stream);
  source.connect(node);
  const [track] = stream.getAudioTracks();
  track.onended = () => {
    source.disconnect();
    onLost();
  };
  return {
    mute(wanted) {
      muted = wanted;
      track.enabled = !wanted;
      resampler.reset();
    },
  };
}

/** @returns {Promise<MediaStream>} */
async function ask() {
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (error) {
    throw new MicrophoneError(reason(/** @type {DOMException} */ (error)));
  }
}

/** @param {DOMException} error */
function reason({ name }) {
  switch (name) {
    case "NotAllowedError":
      return (
        "The microphone is blocked for this page. Allow it with the icon beside the address, " +
        "then press the circle again. You can type meanwhile."
      );
    case "NotFoundError":
      return "There is no microphone. Connect one and press the circle again, or type.";
    default:
      return (
        "The microphone did not start, perhaps another program is using it. Close that program " +
        "and press the circle again, or type."
      );
  }
}

/** @param {Float32Array} samples */
function rms(samples) {
  let energy = 0;
  for (const sample of samples) energy += sample * sample;
  return Math.sqrt(energy / samples.length);
}
