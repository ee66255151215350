/** Refusals and failures in a visitor's words: what happened, and what to do. */

/** @typedef {{ code?: unknown, title?: unknown, detail?: unknown }} Problem a stranger's, maybe */

/** What happened. Where a time follows, it says when to try again; else `THEN` says what to do.
 * @type {Record<string, string>} */
const HAPPENED = {
  rate_limited: 'Too many messages came from your network at once.',
  start_limited: 'Too many new chats were begun from your network.',
  too_many_streams: 'Too many answers are being written for your network at once.',
  budget_visitor: "Today's budget for you has no room for this message.",
  budget_exhausted: "Today's budget of this site has no room for this message.",
  paused: 'The operator has paused this chat.',
  overloaded: 'The server is busy.',
  store_unavailable: 'The server cannot check messages just now.',
  upstream_rejected: "The model's server refused this conversation.",
  upstream_rate_limited: "The model's server is busy.",
  upstream_timeout: "The model's server did not answer in time.",
  upstream_unavailable: "The model's server cannot be reached.",
  origin_forbidden: 'This page may not chat with this server.',
  visitor_blocked: 'The operator has blocked your network for a while.',
  timestamp_stale: "Your device's clock and the server's are too far apart.",
  invalid_request: 'The server does not take this message.',
  payload_too_large: 'The conversation is too long to be sent.',
  request_timeout: 'The message took too long to arrive.',
  byok_key_rejected: 'Your API key was refused.',
  byok_key_malformed: 'This is no API key.',
  byok_disabled: 'Own keys are not taken here.',
  internal_error: 'Something broke on the server.',
};

/** What to do. @type {Record<string, string>} */
const THEN = {
  rate_limited: 'Send it again in a moment.',
  start_limited: 'Send it again in a moment.',
  too_many_streams: 'Let one end, or stop it.',
  overloaded: 'Send it again in a moment.',
  store_unavailable: 'Send it again in a moment.',
  upstream_rejected: 'Shorten or change it, or begin a new chat.',
  'upstream_rejected 502': 'If it stays so, its operator has to look at it.',
  upstream_timeout: 'Send it again, or ask something shorter.',
  upstream_unavailable: 'Send it again in a moment.',
  upstream_rate_limited: 'Send it again in a moment.',
  origin_forbidden: 'Its operator must allow it.',
  visitor_blocked: 'Come back later.',
  timestamp_stale: 'Set it right, then send it again.',
  payload_too_large: 'Shorten the message, or begin a new chat.',
  request_timeout: 'Send it again.',
  byok_disabled: "Go back to the site's budget.",
  internal_error: 'Send it again.',
};

const TOKEN_REFUSED = /^(token_|chain_|fingerprint_|duplicate_|idempotency_)/;

/** A failure whose message is already in the visitor's words. */
export class Refusal extends Error {
  /** @param {string} message @param {string} [reason] the problem's code */
  constructor(message, reason) {
    super(message);
    this.reason = reason;
  }
}

/** @param {Response} response @returns {Promise<Refusal>} */
export async function refusalOf(response) {
  const problem = await response.json().catch(() => undefined);
  const wait = Number(response.headers.get('Retry-After'));
  return new Refusal(refused(problem ?? {}, response.status, wait), problem?.code);
}

/** An answer that ended before its end. @param {{ code?: string }} [error] why, if that was said */
export const brokenOff = ({ code = '' } = {}) =>
  new Refusal(['The answer broke off.', HAPPENED[code]].filter(Boolean).join(' '), code);

/** @param {Problem} problem @param {number} status @param {number} wait seconds, 0 if none */
function refused(problem, status, wait) {
  const code = String(problem.code);
  if (TOKEN_REFUSED.test(code)) return 'The one-time token was refused. Send it again.';
  const happened = HAPPENED[code] ?? (sentence(problem.title) || `The server answered ${status}.`);
  const todo = THEN[`${code} ${status}`] ?? THEN[code] ?? sentence(problem.detail);
  const then = wait > 0 ? when(code, wait) : todo;
  return [happened, then].filter(Boolean).join(' ');
}

/** When to come again: a budget's end has its place on the visitor's clock.
 * @param {string} code @param {number} seconds */
function when(code, seconds) {
  if (!code.startsWith('budget_') || seconds <= 60) return `Try again in ${inWords(seconds)}.`;
  const minute = Math.round((Date.now() / 1000 + seconds) / 60) * 60_000;
  const clock = new Date(minute).toLocaleTimeString([], { timeStyle: 'short' });
  return `The next budget begins at ${clock}, within ${inWords(seconds)}.`;
}

/** @param {number} seconds */
export function inWords(seconds) {
  if (seconds < 120) return counted(Math.ceil(seconds), 'second');
  return seconds < 7200 ? counted(Math.ceil(seconds / 60), 'minute')
    : counted(Math.ceil(seconds / 3600), 'hour');
}

/** @param {number} count @param {string} unit */
const counted = (count, unit) => `${count} ${unit}${count === 1 ? '' : 's'}`;

/** @param {number} excess characters */
export const tooLong = (excess) =>
  `The message is too long by ${counted(excess, 'character')}: shorten it.`;

/** What to say of an error that ended a turn. @param {unknown} error */
export function wordsFor(error) {
  if (error instanceof Refusal) return error.message;
  if (error instanceof DOMException && error.name === 'AbortError') return 'Stopped.';
  if (navigator.onLine === false) return 'You are offline. Send it again when you are back.';
  return 'The connection failed. Check it, then send it again.';
}

/** What to say of an answer that ended. @param {string} finish the reason that upstream gave */
export function endOf(finish) {
  if (finish === 'length') return 'The answer was cut: it reached its greatest length.';
  if (finish === 'content_filter') return 'The answer was withheld by a content filter.';
  return '';
}

/** @param {unknown} words @returns {string} empty, if they are none */
function sentence(words) {
  if (typeof words !== 'string' || !words) return '';
  return /[.!?]$/.test(words) ? words : `${words}.`;
}
