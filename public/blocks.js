/**
 * A growing Markdown text as blocks: those that are finished, and the last, which may still become
 * another. Each step reads the last block only, so that a long answer costs no more than a short one.
 */
import { Lexer } from './vendor/marked.js';

/** @typedef {Record<string, any> & { type: string, raw: string }} Token */

export class Blocks {
  #whole = '';
  #rest = ''; // what follows the finished blocks
  #read = 0; // how much of it was whole lines at the last step
  #links = Object.create(null); // what `[name]: address` defined so far

  get text() {
    return this.#whole;
  }

  /** Takes more of the text. @param {string} more */
  add(more) {
    this.#whole += more;
    this.#rest += more.replaceAll('\r', '');
  }

  /** The blocks since the last step: no later text changes the finished ones. Only whole lines
   * finish a block: half a line may look like another one's beginning.
   * @returns {{ finished: Token[], last: Token[] }} */
  step() {
    const finished = this.#finish(this.#rest.slice(0, this.#rest.lastIndexOf('\n') + 1));
    return { finished, last: lex(this.#rest, this.#links) };
  }

  /** @param {string} lines @returns {Token[]} */
  #finish(lines) {
    if (lines.length === this.#read) return [];
    const tokens = lex(lines, this.#links);
    const finished = tokens.slice(0, Math.max(0, tokens.findLastIndex(isBlock)));
    const raw = finished.map((token) => token.raw).join('');
    if (!this.#rest.startsWith(raw)) return [];
    this.#rest = this.#rest.slice(raw.length);
    this.#read = lines.length - raw.length;
    return finished;
  }

  /** All blocks, read at once: only now is known what every `[name]` refers to.
   * @returns {Token[]} */
  all() {
    return lex(this.#whole, Object.create(null));
  }
}

const isBlock = (/** @type {Token} */ token) => token.type !== 'space';

/** @param {string} text @param {Record<string, unknown>} links @returns {Token[]} */
function lex(text, links) {
  const lexer = new Lexer({ gfm: true });
  /** @type {any} */ (lexer.tokens).links = links;
  try {
    return lexer.lex(text);
  } catch { // nested too deeply for the lexer
    return [{ type: 'html', block: true, raw: text, text }];
  }
}
