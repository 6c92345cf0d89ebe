"""GPT latents to sound while they come, to the same samples as all at once.

coqui-tts decodes all latents again for every chunk (quadratic), and what it sends of a
chunk's end was decoded without what follows, which it hides with a cross-fade. But a
sample depends on 13 frames to either side only: the receptive field of XTTS' HiFi-GAN,
from its layers' kernels and dilations. So each frame is decoded once, when what follows
it is known. The difference to one decode of everything is float rounding, about 1e-7.
"""

from __future__ import annotations

import math
from typing import Any

CONTEXT_FRAMES = 13


class ExactVocoder:
    """The sound of one text, from its first latent to its last.

    `decoder` is the model's HifiDecoder, `speaker` its embedding, shape (1, 512, 1).
    `speed` stretches the latents as coqui-tts does.
    """

    def __init__(self, decoder: Any, speaker: Any, *, speed: float) -> None:
        self._decoder = decoder
        self._speaker = speaker
        self._scales = [
            1 / speed,
            decoder.ar_mel_length_compression / decoder.output_hop_length,
            decoder.output_sample_rate / decoder.input_sample_rate,
        ]
        self._latents: list[Any] = []
        self._frames_done = 0
        # An interpolated frame is settled when both its neighbours are.
        unsettled = 0
        for scale in self._scales:
            if scale != 1:
                unsettled = math.ceil(scale * (unsettled + 0.5)) + 1
        self._held_back = unsettled + CONTEXT_FRAMES

    def add(self, latent: Any) -> None:
        """The next latent, shape (1, channels)."""
        self._latents.append(latent)

    def sound(self, *, final: bool) -> Any:
        """What has become certain since the last call: float samples, shape (n,), n >= 0.

        `final`: no latent follows, so all the rest is certain.
        """
        import torch

        frames = self._frames()
        count = frames.shape[-1]
        settled = count if final else max(self._frames_done, count - self._held_back)
        if settled == self._frames_done:
            return torch.zeros(0)
        begin = max(0, self._frames_done - CONTEXT_FRAMES)
        end = min(count, settled + CONTEXT_FRAMES)
        samples = self._decoder.waveform_decoder(frames[..., begin:end], g=self._speaker).flatten()
        hop = self._decoder.output_hop_length
        first, last = (self._frames_done - begin) * hop, (settled - begin) * hop
        self._frames_done = settled
        return samples[first:last]

    def _frames(self) -> Any:
        """All latents so far at the rate of the decoder's frames, shape (1, channels, n)."""
        import torch

        frames = torch.cat(self._latents).T[None] if self._latents else torch.zeros(1, 1, 0)
        for scale in self._scales:
            if int(frames.shape[-1] * scale) == 0:  # too short to be heard
                return frames[..., :0]
            if scale != 1:
                frames = torch.nn.functional.interpolate(frames, scale_factor=scale, mode="linear")
        return frames
