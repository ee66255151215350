/** What `&copy;` and `&#169;` stand for in a text: the references that are written by hand. */

const NAMED = new Map(Object.entries({
  amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\u00a0', shy: '\u00ad',
  ensp: '\u2002', emsp: '\u2003', thinsp: '\u2009', zwnj: '\u200c', zwj: '\u200d',
  copy: '©', reg: '®', trade: '™', sect: '§', para: '¶', deg: '°', micro: 'µ', middot: '·',
  bull: '•', hellip: '…', ndash: '–', mdash: '—', minus: '−', lsquo: '‘', rsquo: '’',
  ldquo: '“', rdquo: '”', sbquo: '‚', bdquo: '„', laquo: '«', raquo: '»', iexcl: '¡',
  iquest: '¿', dagger: '†', permil: '‰', prime: '′', Prime: '″', cent: '¢', pound: '£',
  yen: '¥', euro: '€', plusmn: '±', times: '×', divide: '÷', frac12: '½', frac14: '¼',
  frac34: '¾', sup1: '¹', sup2: '²', sup3: '³', ne: '≠', le: '≤', ge: '≥', asymp: '≈',
  equiv: '≡', infin: '∞', radic: '√', sum: '∑', prod: '∏', int: '∫', part: '∂', nabla: '∇',
  isin: '∈', notin: '∉', cap: '∩', cup: '∪', sub: '⊂', sup: '⊃', and: '∧', or: '∨', not: '¬',
  forall: '∀', exist: '∃', empty: '∅', larr: '←', uarr: '↑', rarr: '→', darr: '↓', harr: '↔',
  lArr: '⇐', rArr: '⇒', hArr: '⇔', check: '✓', alpha: 'α', beta: 'β', gamma: 'γ', delta: 'δ',
  epsilon: 'ε', theta: 'θ', lambda: 'λ', mu: 'μ', pi: 'π', sigma: 'σ', phi: 'φ', omega: 'ω',
  Delta: 'Δ', Sigma: 'Σ', Omega: 'Ω', szlig: 'ß', auml: 'ä', ouml: 'ö', uuml: 'ü', Auml: 'Ä',
  Ouml: 'Ö', Uuml: 'Ü', eacute: 'é', egrave: 'è', ecirc: 'ê', agrave: 'à', acirc: 'â',
  ccedil: 'ç', ntilde: 'ñ', oslash: 'ø', aring: 'å', aelig: 'æ',
}));

const REFERENCE = /&(?:#(\d{1,7})|#[xX]([\da-fA-F]{1,6})|([A-Za-z][\dA-Za-z]{1,8}));/g;

/** The text with its references resolved, once; an unknown one stays as it is written.
 * @param {string} text */
export const plain = (text) => text.replace(REFERENCE, (whole, decimal, hex, name) => {
  if (name) return NAMED.get(name) ?? whole;
  const code = Number.parseInt(decimal ?? hex, decimal ? 10 : 16);
  const isCharacter = code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
  return isCharacter ? String.fromCodePoint(code) : '\ufffd';
});
