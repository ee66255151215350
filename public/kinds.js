/**
 * What each kind of Markdown becomes: the elements that an answer may hold, and no others.
 *
 * A kind makes an empty node, and fills it with a token, also anew when the token grew.
 */
import { copyButton } from './copy.js';
import { plain } from './entities.js';

/** @typedef {import('./blocks.js').Token} Token */
/** @typedef {(parent: Element, tokens: Token[], linked?: boolean) => void} Inside fits children */
/** @typedef {{ make: (token: Token, before: Node | null) => Node,
 *   fill: (node: any, token: Token, inside: Inside) => void }} Kind */

const LINKS = ['http:', 'https:', 'mailto:'];
const DEEPEST = 20; // levels; what lies deeper is shown as it was written
const MOST_LANGUAGE = 32; // characters

/** The name of a token's kind; what is not known, or not allowed, is the text that it is.
 * @param {Token} token @param {number} depth @param {boolean} linked whether it lies in a link */
export function kindOf(token, depth, linked) {
  const { type } = token;
  if (depth > DEEPEST) return 'source';
  if (type === 'html') return token.block ? 'source block' : 'source';
  if (type === 'list') return token.ordered ? 'ordered list' : 'list';
  if (type === 'text') return token.tokens ? 'run' : 'text';
  if (type === 'link') return !linked && addressOf(token) ? 'link' : 'source';
  if (type === 'image') return !linked && addressOf(token) ? 'image' : 'alternative';
  if (type === 'heading') return depth ? 'inner heading' : `heading ${token.depth}`;
  if (type === 'cell') return token.header && token.raw.trim() ? 'header cell' : 'cell';
  return KINDS.has(type) ? type : 'source';
}

/** @param {Token} token a link or an image @returns {string} empty where it must not lead */
function addressOf(token) {
  try {
    const url = new URL(token.autolink ? token.href : plain(token.href));
    return LINKS.includes(url.protocol) ? url.href : '';
  } catch { // it has no scheme
    return '';
  }
}

/** @param {string} name @param {Record<string, string>} [attributes] @param {Node[]} children */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** An element around the token's own tokens.
 * @param {string} name @param {Record<string, string>} [attributes] @returns {Kind} */
const around = (name, attributes) => ({
  make: () => element(name, attributes),
  fill: (node, token, inside) => inside(node, token.tokens ?? []),
});

/** A text node. @param {(token: Token) => string} textOf @returns {Kind} */
const text = (textOf) => ({
  make: () => document.createTextNode(''),
  fill: (node, token) => grow(node, textOf(token)),
});

/** An element around one text.
 * @param {string} name @param {(token: Token) => string} textOf
 * @param {Record<string, string>} [attributes] @returns {Kind} */
const aroundText = (name, textOf, attributes) => ({
  make: () => element(name, attributes, document.createTextNode('')),
  fill: (node, token) => grow(node.firstChild, textOf(token)),
});

/** @param {string} name @returns {Kind} */
const alone = (name) => ({ make: () => element(name), fill: () => {} });

/** Sets a text; one that only grew keeps what is selected in it.
 * @param {Text} node @param {string} to */
function grow(node, to) {
  if (to.startsWith(node.data)) node.appendData(to.slice(node.data.length));
  else node.data = to;
}

/** A heading, one level at most below the one before it: the message's own is an h2.
 * @param {number} depth @returns {Kind} */
const heading = (depth) => ({
  ...around(''),
  make: (_, before) => {
    let last = before;
    while (last && !/^H\d$/.test(last.nodeName)) last = last.previousSibling;
    const above = last ? Number(last.nodeName[1]) : 2;
    return element(`h${Math.min(depth + 2, above + 1, 6)}`, { class: `heading-${depth}` });
  },
});

/** @type {Kind} a heading in a list or a quotation is none of the answer's outline */
const innerHeading = around('p', { class: 'heading-3' });

/** @type {Kind} */
const orderedList = {
  make: () => element('ol'),
  fill: (node, token, inside) => {
    if (node.start !== token.start) node.start = token.start;
    inside(node, token.items);
  },
};

/** @type {Kind} */
const list = {
  make: () => element('ul'),
  fill: (node, token, inside) => inside(node, token.items),
};

/** @type {Kind} */
const checkbox = {
  make: () => element('span', { class: 'task', role: 'img' }),
  fill: (node, token) => {
    node.textContent = token.checked ? '☑' : '☐';
    node.setAttribute('aria-label', token.checked ? 'Done' : 'To do');
  },
};

/** @type {Kind} */
const code = {
  make: () => {
    const source = document.createTextNode('');
    const bar = element('div', { class: 'code-bar' }, element('span'));
    bar.append(copyButton(() => source.data));
    const pre = element('pre', { tabindex: '0', role: 'group' }, element('code', {}, source));
    return element('div', { class: 'code' }, bar, pre);
  },
  fill: (node, token) => {
    const language = /^\S*/.exec(token.lang ?? '')?.[0].slice(0, MOST_LANGUAGE) ?? '';
    const [bar, pre] = node.children;
    bar.firstChild.textContent = language || 'text';
    pre.setAttribute('aria-label', `Code, ${language || 'text'}`);
    grow(pre.firstChild.firstChild, token.text);
  },
};

/** @type {Kind} */
const table = {
  make: () => {
    const parts = [element('thead'), element('tbody')];
    const holder = { class: 'table', tabindex: '0', role: 'group', 'aria-label': 'Table' };
    return element('div', holder, element('table', {}, ...parts));
  },
  fill: (node, token, inside) => {
    const [head, body] = node.firstChild.children;
    inside(head, [rowOf(token.header)]);
    inside(body, token.rows.map(rowOf));
  },
};

/** @param {Token[]} cells @returns {Token} */
const rowOf = (cells) => ({
  type: 'row',
  raw: cells.map((cell) => cell.text).join('|'),
  align: cells.map((cell) => cell.align).join('|'),
  cells,
});

/** @type {Kind} */
const row = {
  make: () => element('tr'),
  fill: (node, token, inside) =>
    inside(node, token.cells.map((/** @type {Token} */ cell) =>
      ({ ...cell, type: 'cell', raw: cell.text }))),
};

/** @param {string} name @param {Record<string, string>} [attributes] @returns {Kind} */
const cell = (name, attributes) => ({
  make: () => element(name, attributes),
  fill: (node, token, inside) => {
    node.className = `align-${token.align ?? 'none'}`;
    inside(node, token.tokens ?? []);
  },
});

/** @param {(node: any, token: Token, inside: Inside) => void} fill @returns {Kind} */
const link = (fill) => ({
  make: () => element('a', { rel: 'noopener noreferrer nofollow', target: '_blank' }),
  fill: (node, token, inside) => {
    node.href = addressOf(token);
    fill(node, token, inside);
  },
});

const source = (/** @type {Token} */ token) => token.raw;
const words = (/** @type {Token} */ token) => plain(token.text);

/** @type {Map<string, Kind>} */
export const KINDS = new Map(Object.entries({
  paragraph: around('p'),
  blockquote: around('blockquote'),
  ...Object.fromEntries([1, 2, 3, 4, 5, 6].map((depth) => [`heading ${depth}`, heading(depth)])),
  'inner heading': innerHeading,
  list,
  'ordered list': orderedList,
  list_item: around('li'),
  checkbox,
  code,
  table,
  row,
  cell: cell('td'),
  'header cell': cell('th', { scope: 'col' }),
  hr: alone('hr'),
  run: around('span'),
  text: text(words),
  escape: text((token) => token.text),
  source: text(source),
  'source block': aroundText('p', (token) => token.raw.trimEnd(), { class: 'source' }),
  alternative: text((token) => plain(token.text) || token.raw),
  strong: around('strong'),
  em: around('em'),
  del: around('del'),
  codespan: aroundText('code', (token) => token.text),
  br: alone('br'),
  link: link((node, token, inside) => inside(node, token.tokens ?? [], true)),
  image: link((node, token) => {
    node.textContent = `Picture: ${plain(token.text) || node.href}`;
  }),
}));
