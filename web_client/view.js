// @ts-check
/** The DOM: shows rows, state and notices. Decides nothing. */

/** @param {string} id @returns {any} */
export const element = (id) => {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
};

const LINKS = { connecting: "Connecting", open: "Connected", offline: "Offline", locked: "Locked" };

/** @type {Map<string, { item: HTMLLIElement, shown: string }>} */
const captions = new Map();

/** @param {import("./conversation.js").Row[]} rows */
export function showRows(rows) {
  const list = element("captions");
  const scroll = element("scroll");
  const following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  const visible = rows.filter(({ text, unheard }) => text || unheard);
  const ids = new Set(visible.map(({ id }) => id));
  for (const [id, { item }] of captions) {
    if (ids.has(id)) continue;
    item.remove();
    captions.delete(id);
  }
  let changed = false;
  for (const [at, row] of visible.entries()) {
    let caption = captions.get(row.id);
    if (!caption) {
      caption = { item: document.createElement("li"), shown: "" };
      captions.set(row.id, caption);
    }
    if (list.children[at] !== caption.item) list.insertBefore(caption.item, list.children[at] ?? null);
    const state = JSON.stringify(row);
    if (caption.shown === state) continue;
    caption.shown = state;
    showRow(caption.item, row);
    changed = true;
  }
  element("welcome").hidden = visible.length > 0;
  if (changed && following) scroll.scrollTop = scroll.scrollHeight;
}

/** @param {HTMLLIElement} item @param {import("./conversation.js").Row} row */
function showRow(item, { role, text, unheard, why, live }) {
  item.className = live ? `${role} live` : role;
  // Read out once, when it is whole, not word by word.
  item.setAttribute("aria-busy", String(live));
  const who = document.createElement("span");
  who.className = "hidden";
  who.textContent = role === "user" ? "You: " : "IVAS: ";
  item.replaceChildren(who, text);
  if (!unheard) return;
  const cut = document.createElement("s");
  cut.textContent = unheard.trimStart();
  const note = document.createElement("small");
  note.textContent = why;
  item.append(unheard === cut.textContent ? "" : " ", cut, note);
}

/**
 * @param {{ state: string, sentence: string, link: keyof typeof LINKS,
 *   microphone: string, label: string, stoppable: boolean }} now
 */
export function showState({ state, sentence, link, microphone, label, stoppable }) {
  const { dataset } = document.body;
  dataset.state = state;
  dataset.microphone = microphone;
  setText("status", sentence);
  setText("link-text", LINKS[link]);
  setText("talk-label", label);
  element("talk").title = label;
  element("talk").disabled = link !== "open" && microphone === "off";
  element("send").disabled = link !== "open";
  element("stop").disabled = !stoppable;
  element("unlock").hidden = link !== "locked";
}

/** Only what is new, so that a screen reader says it once. @param {string} id @param {string} text */
function setText(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
}

/** How loud it is now. @param {number} rms 0..1 */
export function showLevel(rms) {
  // Loudness is felt by its logarithm; -50 dBFS and below is rest, -10 dBFS is full.
  const level = Math.max(0, Math.min(1, (20 * Math.log10(rms + 1e-6) + 50) / 40));
  document.documentElement.style.setProperty("--level", level.toFixed(2));
}

/** @param {string} sentence empty = nothing to say */
export function showNotice(sentence) {
  setText("notice-text", sentence);
  element("notice").hidden = sentence === "";
}
