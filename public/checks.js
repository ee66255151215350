/**
 * What the gate decided, read from its answer: which checks a turn passed, and where it was refused.
 * Pure. The order is the gate's own, see security/gate.py.
 */

/** @typedef {'passed' | 'refused' | 'not reached' | 'not asked'} Verdict */
/** @typedef {{ number?: number, name: string, about: string, verdict: Verdict, first?: string }} Check
 *   first: what it is about at a first turn */
/** @typedef {{ status: number, headers: Headers }} Answer */

const CHECKS = [
  { number: 1, name: 'Timestamp', about: 'sent just now' },
  {
    number: 2,
    name: 'Fingerprint',
    about: 'by the browser that the token was made for',
    first: 'well formed: the new chain is bound to it',
  },
  { name: 'Body', about: 'whole, and asks for what may be asked' },
  { number: 3, name: 'Address rate', about: 'from an address that does not ask too often' },
  {
    number: 4,
    name: 'One-time token',
    about: 'never used before',
    first: 'none yet: a first turn begins a chain',
  },
  { name: 'Budget', about: 'room among running answers, and for the most that it can cost' },
];

/** Where each refusal is made; what stands nowhere is refused before the first check.
 * @type {[number, RegExp][]} */
const REFUSED_AT = [
  [0, /^timestamp_/],
  [1, /^(fingerprint_.*|token_(malformed|forged|expired))$/],
  [2, /^(malformed_json|unsupported_parameter|invalid_request|payload_too_large|request_timeout)$/],
  [2, /^byok_(disabled|key_malformed)$/],
  [3, /^(rate_limited|start_limited|visitor_blocked|store_unavailable)$/],
  [4, /^(token_reused|chain_.*|duplicate_request|idempotency_conflict)$/],
  [5, /^(too_many_streams|paused|budget_.*)$/],
];
const ADMITTED = /^(upstream_.*|byok_key_rejected)$/; // the gate let it in, upstream did not
const OWN_KEY_IS_NOT_ASKED = [0, 1, 4, 5];

/** Every check with its verdict.
 * @param {Answer} answer @param {string} [code] the problem's, if it was refused
 * @param {boolean} [ownKey] whether the visitor's own key paid
 * @returns {Check[]} */
export function verdicts(answer, code, ownKey = false) {
  const end = endOf(answer, code);
  return CHECKS.map((check, at) => {
    if (ownKey && OWN_KEY_IS_NOT_ASKED.includes(at)) return { ...check, verdict: 'not asked' };
    const verdict = at < end.passed ? 'passed' : at === end.refused ? 'refused' : 'not reached';
    return { ...check, verdict };
  });
}

/** @param {Answer} answer @param {string} [code] */
function endOf({ status, headers }, code = '') {
  const followed = headers.has('Keyturn-Token') && !/^(duplicate_request|chain_.*)$/.test(code);
  if (status < 400 || followed || ADMITTED.test(code)) return { passed: CHECKS.length };
  const refused = REFUSED_AT.find(([, codes]) => codes.test(code))?.[0];
  if (refused !== undefined) return { passed: refused, refused };
  return { passed: code === 'overloaded' ? 3 : 0 }; // nothing was wrong with it, but it is not tried
}

/** The rate limits that an answer tells of, and their policies.
 * @param {Headers} headers @returns {{ name: string, left: number, of: number, regained: number }[]} */
export function limitsOf(headers) {
  const policies = new Map(items(headers.get('RateLimit-Policy')).map((item) => [item.name, item]));
  return items(headers.get('RateLimit')).map(({ name, r, t }) =>
    ({ name, left: r, of: policies.get(name)?.q ?? r, regained: t }));
}

/** @param {string | null} field a list of named items with numbers: `"address";r=12;t=2` */
function items(field) {
  const found = [...(field ?? '').matchAll(/"(\w+)"((?:;\w+=\d+)*)/g)];
  return found.map(([, name, numbers]) => /** @type {any} */ ({ name, ...numbersOf(numbers) }));
}

/** What is left of the visitor's own budget, in millionths of a dollar.
 * @param {Headers} headers */
export function budgetOf(headers) {
  const field = headers.get('Keyturn-Budget');
  if (!field) return undefined;
  const { remaining, limit, reset } = numbersOf(field);
  return { remaining, limit, reset };
}

/** @param {string} text @returns {Record<string, number>} */
const numbersOf = (text) =>
  Object.fromEntries([...text.matchAll(/(\w+)=(\d+)/g)].map(([, key, value]) => [key, Number(value)]));

/** The end of a token, by which one can tell it from others; it opens nothing.
 * @param {string | null | undefined} token */
export const shortened = (token) => (token ? `…${token.slice(-6)}` : 'none');

/** The token that a request showed. @param {Headers} sent */
export const tokenOf = (sent) => /^Bearer (?!sk-)(.+)$/.exec(sent.get('Authorization') ?? '')?.[1];
