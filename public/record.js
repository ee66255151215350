/** What one turn was on the wire: built from its attempts, with nothing secret in it. Pure. */
import { budgetOf, limitsOf, shortened, tokenOf, verdicts } from './checks.js';

/** @typedef {import('./client.d.ts').Exchange} Exchange */

/**
 * @typedef {object} Attempt
 * @property {number} number
 * @property {number} ms
 * @property {string} outcome status and code, or that there was no answer
 * @property {string} [remedy]
 */

/**
 * @typedef {object} TurnRecord
 * @property {string} label the request's, in the server's log
 * @property {boolean} ownKey
 * @property {number} begun Unix milliseconds
 * @property {Attempt[]} attempts
 * @property {boolean} admitted
 * @property {string} outcome
 * @property {string} shown the end of the token that was shown last
 * @property {string} came the end of the one that came back
 * @property {import('./checks.js').Check[]} checks
 * @property {ReturnType<typeof limitsOf>} limits
 * @property {ReturnType<typeof budgetOf>} budget
 * @property {number} [maxOutput] tokens, if the answer had to be shorter
 * @property {number} [firstByte] milliseconds since the turn began, as the next two
 * @property {number} [firstWord]
 * @property {number} [whole]
 */

const IN_WORDS = {
  'right clock': 'clock corrected',
  'new chain': 'new chain begun',
  successor: 'successor taken',
  resend: 'sent again',
  wait: 'waited',
};

/** @param {string} label @param {boolean} ownKey @returns {TurnRecord} */
export const newRecord = (label, ownKey) => ({
  label,
  ownKey,
  begun: Date.now(),
  attempts: [],
  admitted: false,
  outcome: 'on its way',
  shown: '',
  came: '',
  checks: [],
  limits: [],
  budget: undefined,
});

/** The record after one more attempt.
 * @param {TurnRecord} record @param {Exchange} exchange @returns {TurnRecord} */
export function withExchange(record, { attempt, startedAt, ms, sent, response, problem, remedy }) {
  const code = problem?.code;
  const outcome = response ? [response.status, code].filter(Boolean).join(' ') : 'no answer';
  const line = { number: attempt, ms, outcome, remedy: remedy && IN_WORDS[remedy] };
  const after = { ...record, attempts: [...record.attempts, line], outcome };
  if (!response) return { ...after, admitted: false };
  const { headers } = response;
  return {
    ...after,
    admitted: response.ok,
    shown: shortened(tokenOf(sent)),
    came: shortened(headers.get('Keyturn-Token')),
    checks: verdicts(response, code, record.ownKey),
    limits: limitsOf(headers),
    budget: budgetOf(headers) ?? record.budget,
    maxOutput: Number(headers.get('Keyturn-Max-Output')) || undefined,
    firstByte: startedAt - record.begun + ms,
  };
}

/** What can show a turn's spent token again: secret, so it is kept beside the record, not in it.
 * @typedef {{ token: string, fingerprint: string, clock: number }} Spent */

/** @param {Exchange} exchange @returns {Spent | undefined} nothing, where no token was spent */
export function spentBy({ sent, startedAt, response }) {
  const token = tokenOf(sent);
  if (!token || !response?.headers.has('Keyturn-Token')) return undefined;
  const clock = Number(sent.get('Keyturn-Timestamp')) - startedAt; // how the client corrects ours
  return { token, fingerprint: sent.get('Keyturn-Fingerprint') ?? '', clock };
}
