/** The operator's API, asked by the session's cookie. */

const PATIENCE_MS = 15_000;

/** A refusal, or no answer at all: then `status` is 0. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} detail
   */
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [how]
 * @returns {Promise<any>}
 */
const ask = async (path, how = {}) => {
  let answer;
  let said;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    answer = await fetch(`/admin/api/${path}`, { ...how, signal, cache: 'no-store' });
    said = await answer.json();
  } catch {
    throw new Refused(0, 'no_answer', 'The server does not answer.');
  }
  if (answer.ok) return said;
  const wait = answer.headers.get('Retry-After');
  const later = answer.status === 429 && wait ? ` That is ${wait} seconds.` : '';
  throw new Refused(answer.status, said.code, `${said.title}. ${said.detail}${later}`);
};

/** @param {string} path */
export const look = (path) => ask(path);

/**
 * @param {string} path
 * @param {object} [body]
 */
export const decide = (path, body = {}) => ask(path, {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body),
});
