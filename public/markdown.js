/**
 * Markdown as it streams in, as elements.
 *
 * The law: every element is made by name and every text is a text node, so nothing that was written
 * can become markup. What is unchanged keeps its node, so that nothing flickers and a selection
 * stays; finished blocks are not looked at again, so that a long answer is as quick as a short one.
 */
import { Blocks } from './blocks.js';
import { KINDS, kindOf } from './kinds.js';

/** @typedef {import('./blocks.js').Token} Token */
/** @typedef {{ depth: number, linked?: boolean, anew?: boolean }} Place
 *   how deep, whether in a link, and whether to look again at what seems unchanged */

const REST_PER_WORK = 3; // three quarters of the time, at least, are the reader's

/** @type {WeakMap<Node, { token: Token, kind: string }>} what each node shows */
const shown = new WeakMap();

/** A text that grows in an element. */
export class Markdown {
  #parent;
  #around;
  #blocks = new Blocks();
  #finished = 0; // children that are not touched again
  #due = 0;
  #rested = 0; // when the next rendering may begin

  /** @param {Element} parent @param {(render: () => void) => void} [around] is given each step */
  constructor(parent, around = (render) => render()) {
    this.#parent = parent;
    this.#around = around;
  }

  get text() {
    return this.#blocks.text;
  }

  /** Adds to the text; it is shown with the next frame. @param {string} more */
  write(more) {
    this.#blocks.add(more);
    if (more && !this.#due) this.#wait();
  }

  /** The text is whole: shows it now. */
  end() {
    cancelAnimationFrame(this.#due);
    this.#due = 0;
    this.#around(() => fit(this.#parent, this.#blocks.all(), { depth: 0, anew: true }));
  }

  #wait() {
    this.#due = requestAnimationFrame(() => {
      if (performance.now() < this.#rested) return this.#wait();
      this.#due = 0;
      this.#around(() => this.step());
    });
  }

  /** Shows what came since the last step. */
  step() {
    const begun = performance.now();
    const { finished, last } = this.#blocks.step();
    fit(this.#parent, [...finished, ...last], { depth: 0 }, this.#finished);
    this.#finished += finished.filter(isShown).length;
    const took = performance.now() - begun;
    this.#rested = performance.now() + took * REST_PER_WORK;
  }
}

const isShown = (/** @type {Token} */ token) => token.type !== 'space' && token.type !== 'def';

/** Makes an element's children show these tokens, a node for each; unchanged ones are kept.
 * @param {Element} parent @param {Token[]} tokens @param {Place} place @param {number} [from] */
function fit(parent, tokens, place, from = 0) {
  /** @type {Node | null} */
  let old = parent.childNodes[from] ?? null;
  for (const token of tokens.filter(isShown)) {
    const kind = kindOf(token, place.depth, Boolean(place.linked));
    if (!old || shown.get(old)?.kind !== kind) old = put(kind, token, parent, old);
    fill(old, token, kind, place);
    old = old.nextSibling;
  }
  while (old) {
    const next = old.nextSibling;
    parent.removeChild(old);
    old = next;
  }
}

/** A new node, in the place of the old one. @param {string} kind @param {Token} token
 * @param {Element} parent @param {Node | null} old @returns {Node} */
function put(kind, token, parent, old) {
  const before = old ? old.previousSibling : parent.lastChild;
  const node = /** @type {import('./kinds.js').Kind} */ (KINDS.get(kind)).make(token, before);
  if (old) parent.replaceChild(node, old);
  else parent.append(node);
  return node;
}

/** What was written so, shows so; only lists and tables also depend on what follows.
 * @param {Token} was @param {Token} now */
const isSame = (was, now) =>
  was.raw === now.raw && was.loose === now.loose && was.align === now.align;

/** @param {Node} node @param {Token} token @param {string} kind @param {Place} place */
function fill(node, token, kind, place) {
  const was = shown.get(node)?.token;
  if (was && !place.anew && isSame(was, token)) return;
  shown.set(node, { token, kind });
  KINDS.get(kind)?.fill(node, token, (parent, tokens, linked = place.linked) =>
    fit(parent, tokens, { ...place, linked, depth: place.depth + 1 }));
}
