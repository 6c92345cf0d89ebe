// @ts-check
/**
 * Which words of a reply sound when, from the order in which words and sound arrive.
 *
 * Text comes just ahead of the sound that says it, so each piece of text is said from
 * where the sound stood when it came to where it stood when the next piece came.
 * Inside a piece the words are spread evenly.
 */

const MS_PER_CHARACTER = 65; // for a piece whose sound is still coming: a usual rate of speech

export class Cues {
  constructor() {
    /** @type {{ text: string, fromMs: number }[]} */
    this._pieces = [];
    this._soundMs = 0;
    this._complete = false;
  }

  /** @param {string} delta */
  addText(delta) {
    const last = this._pieces.at(-1);
    // Text after text with no sound between belongs to the same sound.
    if (last && last.fromMs === this._soundMs) last.text += delta;
    else this._pieces.push({ text: delta, fromMs: this._soundMs });
  }

  /** @param {number} ms of sound that arrived */
  addSound(ms) {
    this._soundMs += ms;
  }

  /** Nothing more will come. */
  complete() {
    this._complete = true;
  }

  /** Whether any sound has arrived. */
  get sounds() {
    return this._soundMs > 0;
  }

  get text() {
    return this._pieces.map(({ text }) => text).join("");
  }

  /**
   * @param {number} playedMs
   * @returns {string} the words that have begun by then
   */
  heard(playedMs) {
    let heard = "";
    for (const [at, { text, fromMs }] of this._pieces.entries()) {
      const next = this._pieces[at + 1];
      const estimate = this._complete ? 0 : fromMs + text.length * MS_PER_CHARACTER;
      const untilMs = next ? next.fromMs : Math.max(this._soundMs, estimate);
      if (playedMs >= untilMs) {
        heard += text;
        continue;
      }
      if (playedMs > fromMs) {
        heard += wholeWords(text, ((playedMs - fromMs) / (untilMs - fromMs)) * text.length);
      }
      break;
    }
    return heard;
  }
}

/** @param {string} text @param {number} end characters; the word begun there is kept whole */
function wholeWords(text, end) {
  const space = text.slice(Math.ceil(end)).search(/\s/);
  return space < 0 ? text : text.slice(0, Math.ceil(end) + space);
}
