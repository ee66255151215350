/**
 * A fetch that turns the key: a POST to `/v1/*` shows a token and takes its successor.
 *
 * The law: one send at a time has the token, until its headers are there. A token that may be spent
 * is shown again only with its key and body.
 *
 * @import { Exchange, Fetch, Options, Remedy, Store } from './client.d.ts'
 */

const LINGER = 3000; // milliseconds that a stopped send has for its token
const PAUSES = [0, 1, 2, 4, 8]; // seconds before a lost send goes again

/** @type {Record<string, Promise<any>>} the queues' ends */
const tails = {};
let twinless = false;

/** @typedef {{ request: Request, body: string, signal: AbortSignal, own?: string, key: string,
 *   token?: string | null, doubt?: boolean }} Turn doubt: the token may be spent */

/** @param {Options} [options] @returns {Fetch} */
export function createFetch(
  { baseURL = '', fingerprint, storage, ownKey, maxWait = 30, onExchange } = {},
) {
  const root = new URL(`${baseURL}`.replace(/(\/v1)?\/*$/, '/'), globalThis.location?.href).href;
  const store = usable(storage);
  const tab = tabId(store);
  const slot = `keyturn:token:${tab}:${root}`;
  const print = fingerprint ?? (() => tabFingerprint(tab));
  let offset = 0; // milliseconds that the server's clock is ahead
  /** @type {Turn | undefined} */
  let doubtful;

  /** @param {Turn} turn */
  async function headersFor({ request, own, token, key }) {
    const headers = new Headers(request.headers);
    if (own || token) headers.set('Authorization', `Bearer ${own || token}`);
    if (own) return headers;
    headers.set('Idempotency-Key', key);
    headers.set('Keyturn-Fingerprint', typeof print === 'string' ? print : await print());
    headers.set('Keyturn-Timestamp', String(Date.now() + offset));
    return headers;
  }

  /** @param {Turn} turn @param {number} attempt */
  async function exchange(turn, attempt) {
    const { request, body, signal, own } = turn;
    const headers = await headersFor(turn);
    signal.throwIfAborted();
    if (!own) store.removeItem(slot); // while in flight
    const hangUp = new AbortController();
    const stop = () => hangUp.abort(signal.reason);
    let heard = Boolean(own);
    signal.addEventListener('abort', () => (heard ? stop() : setTimeout(stop, LINGER)));
    const startedAt = Date.now();
    let response, failure;
    try {
      response = await fetch(request, { headers, body, signal: hangUp.signal });
    } catch (error) {
      failure = error;
    }
    const ms = Date.now() - startedAt;
    const isProblem = /problem\+json/.test(`${response?.headers.get('Content-Type')}`);
    const problem = isProblem ? await response?.clone().json().catch(() => {}) : undefined;
    heard = true;
    if (signal.aborted) stop();
    return { failure, attempt, startedAt, ms, sent: headers, response, problem };
  }

  /** @param {Turn} turn @param {Exchange} seen @returns {Remedy | undefined} */
  function learn(turn, { response, problem }) {
    const code = `${problem?.code}`;
    const successor = response?.headers.get('Keyturn-Token');
    const lost = /^(token|chain|fingerprint_mismatch)/.test(code)
      || (turn.doubt && code === 'idempotency_conflict');
    if (successor || lost) turn.doubt = false;
    else if (!problem || problem.chain === 'unknown') turn.doubt = true;
    turn.token = successor ?? (lost ? null : turn.token);
    doubtful = turn.doubt ? turn : undefined;
    if (turn.token && !turn.doubt) store.setItem(slot, turn.token);
    if (lost || code === 'duplicate_request') {
      turn.key = randomId();
      return lost ? 'new chain' : 'successor';
    }
    if (!problem || !/^timestamp/.test(code)) return undefined;
    offset = problem.server_time_ms - Date.now() || 0;
    return 'right clock';
  }

  /** @param {Turn} turn */
  async function send(turn) {
    const tried = new Set(); // each once: they cost turns
    let [left, losses] = [maxWait, 0];
    let answers; // does the server, to others?
    for (let attempt = 1; ; attempt += 1) {
      const { failure, ...seen } = await exchange(turn, attempt);
      const { response, problem } = seen;
      let remedy = turn.own ? undefined : learn(turn, seen);
      let seconds = Number(response?.headers.get('Retry-After'));
      if (failure) {
        if (failure instanceof TypeError && !turn.own) remedy = 'resend';
        seconds = await answers ? NaN : PAUSES[losses++];
        answers = fetch(`${root}api/health`).catch(() => {});
      } else if (problem && seconds && response?.headers.get('x-should-retry') !== 'false') {
        remedy = 'wait';
      } else if (tried.has(remedy)) remedy = undefined;
      tried.add(remedy);
      if (!(seconds <= left) || turn.signal.aborted) remedy = undefined;
      Promise.resolve({ ...seen, remedy }).then(onExchange).catch(console.error);
      if (!remedy && response) return response;
      if (!remedy) throw failure;
      const offline = failure && globalThis.navigator?.onLine === false;
      seconds = offline ? left : Math.min(seconds * (1 + Math.random() / 4), left);
      left -= await pause(seconds, turn.signal, failure);
    }
  }

  /** @param {Request} request @param {string} body @param {AbortSignal} signal */
  function inTurn(request, body, signal) {
    const work = () => send({
      key: request.headers.get('Idempotency-Key') ?? randomId(),
      token: store.getItem(slot),
      ...(doubtful?.body === body && doubtful),
      request, body, signal,
    });
    const locks = store !== inMemory && globalThis.navigator?.locks;
    // What another tab stored takes a moment to be seen.
    const later = () => pause(0.2, signal).then(work);
    const alone = async () => (locks ? locks.request(slot, { ifAvailable: true }, (lock) =>
      (lock ? work() : locks.request(slot, later))) : work());
    tails[slot] = (tails[slot] ?? Promise.resolve()).then(alone, alone);
    return Promise.race([tails[slot], stopOf(signal)]);
  }

  return async (input, init) => {
    const place = String(/** @type {Request} */ (input).url ?? input);
    const { href } = new URL(place.replace(/^\/(?!\/)/, './'), root);
    if (!href.startsWith(root)) return fetch(input, init);
    const request = new Request(input instanceof Request ? input : href, init);
    const signal = init?.signal ?? /** @type {Request} */ (input).signal
      ?? new AbortController().signal; // Node collects request.signal
    request.headers.delete('Authorization'); // an SDK's, or one that slipped in
    const gated = request.method === 'POST' && href.startsWith(`${root}v1/`);
    if (!gated) return fetch(request, { signal });
    const own = typeof ownKey === 'function' ? ownKey() : ownKey;
    const body = await request.text();
    return own ? send({ request, body, signal, own, key: '' }) : inTurn(request, body, signal);
  };
}

/** @template {object} M @param {M[]} messages @returns {M[]} */
export function trimHistory(messages, { maxMessages = 50, maxBytes = 200_000 } = {}) {
  /** @type {any[]} */
  const all = messages;
  const head = all.findIndex(({ role }) => !/^(system|developer)$/.test(role));
  const last = new Map(all.map(({ call_id }, i) => [call_id, i]));
  let [kept, together] = [all, head];
  for (const [i, { role, call_id }] of all.entries()) {
    if (role === 'user' && i > together) {
      const few = kept.length <= maxMessages;
      if (few && new Blob([JSON.stringify(kept)]).size <= maxBytes) break;
      kept = [...all.slice(0, head), ...all.slice(i)];
    }
    if (call_id) together = Math.max(together, Number(last.get(call_id)));
  }
  return kept;
}

/** @param {Response} response */
export async function* readEvents(response) {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (let next = await reader?.read(); next?.value; next = await reader?.read()) {
      const events = (rest + next.value).split(/\r\n\r\n|\n\n|\r\r/);
      rest = events.pop() ?? '';
      for (const event of events) {
        const data = event.split(/\r\n|\n|\r/).filter((line) => line.startsWith('data:'));
        if (data.length) yield data.map((line) => line.replace(/^data: ?/, '')).join('\n');
      }
    }
  } finally {
    await reader?.cancel().catch(() => {}); // whoever stops reading hangs up
  }
}

/** @param {AbortSignal} signal @returns {Promise<never>} */
const stopOf = (signal) => new Promise((_, reject) => {
  if (signal.aborted) reject(signal.reason);
  signal.addEventListener('abort', () => reject(signal.reason));
});

/** @param {number} seconds @param {AbortSignal} signal @param {unknown} [failure] */
async function pause(seconds, signal, failure) {
  if (!seconds) return 0;
  const start = performance.now();
  await Promise.race([stopOf(signal), new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    if (failure) globalThis.addEventListener?.('online', resolve);
  })]);
  return (performance.now() - start) / 1000;
}

const memory = new Map();

/** @type {Store} where there is no other */
const inMemory = {
  getItem: (name) => memory.get(name) ?? null,
  setItem: (name, value) => memory.set(name, value),
  removeItem: (name) => memory.delete(name),
};

/** @param {Store} [storage] */
function usable(storage) {
  try {
    const store = storage ?? globalThis.sessionStorage;
    if (!storage) {
      // A duplicated tab has the storage of a page that was not left.
      if (!twinless && !store.getItem('keyturn:left')) store.removeItem('keyturn:tab');
      twinless = true;
      addEventListener('pagehide', () => store.setItem('keyturn:left', '1'));
      addEventListener('pageshow', () => store.removeItem('keyturn:left'));
    }
    store.setItem('keyturn:left', '1');
    store.removeItem('keyturn:left');
    return store;
  } catch {
    return inMemory;
  }
}

/** @param {Store} store @returns {string} */
function tabId(store) {
  const id = store.getItem('keyturn:tab') ?? randomId();
  store.setItem('keyturn:tab', id);
  return id;
}

/** @param {string} tab */
async function tabFingerprint(tab) {
  const { language, platform } = globalThis.navigator ?? {};
  const signals = new TextEncoder().encode([tab, language, platform].join());
  const digest = await crypto.subtle?.digest('SHA-256', signals); // not on plain http
  return digest ? hex(digest) : tab;
}

const randomId = () => hex(crypto.getRandomValues(new Uint8Array(32)));

const hex = (/** @type {Uint8Array | ArrayBuffer} */ bytes) =>
  Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, '0')).join('');
