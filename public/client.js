/**
 * A fetch that turns the key: every POST to `/v1/*` shows one token and takes its successor.
 *
 * The law: one send at a time holds the token, until its headers are there. A token that may be
 * spent is shown again only with the same key and body; any other send begins a new chain. What is
 * then still refused is the caller's to read. How to use it: docs/browser.md
 */

/** @typedef {import('./client.d.ts').Store} Store */
/** @typedef {import('./client.d.ts').Problem} Problem */

const WAITING_HELPS = /^(rate_limited|start_limited|too_many_streams|overloaded|store_unavailable)$/;
const CHAIN_IS_GONE = /^(token_|chain_|fingerprint_mismatch)/;
const MOST_RESENDS = 5;
const LINGER = 3000; // milliseconds for which a stopped send awaits its headers, for their token

/** @type {WeakMap<Store, Promise<unknown>>} the queues' ends: who shares a token shares a queue */
const tails = new WeakMap();

/** Returns a fetch that passes the gate; requests to others than Keyturn pass as they are.
 * @param {import('./client.d.ts').Options} [options]
 * @returns {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>} */
export function createFetch(options = {}) {
  const { baseURL = '', fingerprint, storage, ownKey, maxWait = 30, onExchange } = options;
  const root = new URL(`${baseURL}`.replace(/(\/v1)?\/*$/, '/'), globalThis.location?.href).href;
  const store = usable(storage);
  const slot = `keyturn:token:${root}`;
  const print = fingerprint ?? (() => tabFingerprint(store));
  let offset = 0; // milliseconds by which this clock is behind the server's
  /** @type {Turn | undefined} the last one, if nobody knows whether its token is spent */
  let doubtful;

  /**
   * @typedef {object} Turn what a send shows, and what it has tried
   * @property {string} body
   * @property {string} key
   * @property {string | null} token
   * @property {boolean} [doubt] whether the token may be spent
   * @property {string} [own]
   */

  /** @param {Turn} turn @param {Headers} headers */
  async function sign({ own, token, key }, headers) {
    if (own ?? token) headers.set('Authorization', `Bearer ${own ?? token}`);
    if (own) return;
    headers.set('Idempotency-Key', key);
    headers.set('Keyturn-Fingerprint', typeof print === 'string' ? print : await print());
    headers.set('Keyturn-Timestamp', String(Date.now() + offset));
  }

  /** Keeps what an attempt taught of the chain, and says what may cure its refusal.
   * @param {Turn} turn @param {Response | undefined} response @param {Problem | undefined} problem
   * @returns {import('./client.d.ts').Remedy | undefined} */
  function learn(turn, response, problem) {
    const code = problem?.code ?? '';
    const successor = response?.headers.get('Keyturn-Token');
    const gone = CHAIN_IS_GONE.test(code) || (code === 'idempotency_conflict' && turn.doubt);
    if (successor || gone) turn.doubt = false;
    else if (!problem || problem.chain === 'unknown') turn.doubt = true;
    turn.token = gone ? null : successor ?? turn.token;
    doubtful = turn.doubt ? turn : undefined;
    if (turn.token && !turn.doubt) store.setItem(slot, turn.token);
    if (gone) return 'new chain';
    if (code === 'duplicate_request') return 'successor';
    if (code !== 'timestamp_stale' || !problem?.server_time_ms) return undefined;
    offset = problem.server_time_ms - Date.now();
    return 'right clock';
  }

  /** Sends until there is an answer for the caller.
   * @param {Request} request @param {Turn} turn @param {AbortSignal | null} [signal] */
  async function send(request, turn, signal) {
    /** @type {Record<string, number>} */
    const times = { resend: 0 };
    let left = maxWait * 1000;
    for (let attempt = 1; ; attempt += 1) {
      signal?.throwIfAborted();
      const sent = new Headers(request.headers);
      await sign(turn, sent);
      if (!turn.own) store.removeItem(slot); // nobody else shows it meanwhile, nor we after a reload
      /** @type {unknown} */
      let failure;
      const startedAt = Date.now();
      const start = performance.now();
      const response = await fetchToHeaders(request, { headers: sent, body: turn.body }, signal,
        turn.own ? 0 : LINGER).catch((error) => void (failure = error)) ?? undefined;
      const ms = Math.round(performance.now() - start);
      const problem = await problemOf(response);
      let remedy = turn.own ? undefined : learn(turn, response, problem);
      let wait = 0;
      if (failure instanceof TypeError && !turn.own) {
        remedy = 'resend';
        wait = times.resend && 2 ** (times.resend - 1);
      } else if (WAITING_HELPS.test(problem?.code ?? '') && response?.headers.get('x-should-retry') !== 'false') {
        remedy = 'wait';
        wait = Number(response?.headers.get('Retry-After')) || 1;
      }
      wait *= 1000;
      if (remedy) {
        times[remedy] = (times[remedy] ?? 0) + 1;
        const most = remedy === 'wait' ? Infinity : remedy === 'resend' ? MOST_RESENDS : 1;
        if (times[remedy] > most || wait > left || signal?.aborted) remedy = undefined;
      }
      tell({ attempt, startedAt, ms, sent, response, problem, remedy });
      if (!remedy && failure) throw failure;
      if (!remedy) return /** @type {Response} */ (response);
      if (remedy === 'successor' || remedy === 'new chain') turn.key = randomId();
      const offline = remedy === 'resend' && globalThis.navigator?.onLine === false;
      const rest = offline ? left : Math.min(wait * (1 + Math.random() / 4), left);
      left = Math.max(0, left - await pause(rest, signal, offline));
    }
  }

  /** @param {import('./client.d.ts').Exchange} exchange */
  function tell(exchange) {
    new Promise((resolve) => resolve(onExchange?.(exchange))).catch(console.error);
  }

  return async (input, init) => {
    const place = String(/** @type {Request} */ (input).url ?? input).replace(/^\/(?!\/)/, () => root);
    const { href } = new URL(place, root);
    if (!href.startsWith(root)) return fetch(input, init);
    const request = new Request(input instanceof Request ? input : href, init);
    // The given signal, not request.signal: Node 20 collects that one while the answer streams.
    const signal = init?.signal ?? /** @type {Request} */ (input).signal;
    request.headers.delete('Authorization'); // an SDK's placeholder, or a key that slipped in
    if (request.method !== 'POST' || !href.startsWith(`${root}v1/`)) return fetch(request, { signal });
    const body = await request.text();
    const own = typeof ownKey === 'function' ? ownKey() : ownKey;
    const key = request.headers.get('Idempotency-Key') ?? randomId();
    if (own) return send(request, { body, key, token: null, own }, signal);
    return inTurn(store, signal, () =>
      send(request, doubtful?.body === body ? doubtful : { body, key, token: store.getItem(slot) }, signal));
  };
}

/** The newest messages that fit, after those of system and developer at the head, from one of the
 * user's on: a tool's call and its result stay together.
 * @template {{ role?: unknown }} M @param {M[]} messages
 * @param {{ maxMessages?: number, maxBytes?: number }} [limits] of all that is kept, as JSON
 * @returns {M[]} the same array, if it fits */
export function trimHistory(messages, { maxMessages = 50, maxBytes = 200_000 } = {}) {
  const size = (/** @type {M} */ message) =>
    new TextEncoder().encode(JSON.stringify(message)).length + 1;
  const head = messages.findIndex(({ role }) => role !== 'system' && role !== 'developer');
  const lead = messages.slice(0, Math.max(head, 0));
  let bytes = 1 + lead.reduce((sum, message) => sum + size(message), 0);
  let from = -1;
  for (let i = messages.length - 1; i >= lead.length; i -= 1) {
    bytes += size(messages[i]);
    const fits = messages.length - i + lead.length <= maxMessages && bytes <= maxBytes;
    if (!fits && from >= 0) return [...lead, ...messages.slice(from)];
    if (fits && i === lead.length) return messages;
    if (messages[i].role === 'user') from = i;
  }
  return messages;
}

/** Yields the data of each server-sent event, however its bytes were cut; an unfinished one never.
 * @param {Response} response */
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

/** Fetches until the headers are there. A stop before is passed on late, since they bring the token.
 * @param {Request} request @param {RequestInit} init @param {AbortSignal | null | undefined} signal
 * @param {number} linger milliseconds */
async function fetchToHeaders(request, init, signal, linger) {
  const hangUp = new AbortController();
  const stop = () => hangUp.abort(signal?.reason);
  signal?.addEventListener('abort', () => (linger ? setTimeout(stop, linger) : stop()));
  try {
    return await fetch(request, { ...init, signal: hangUp.signal });
  } finally {
    linger = 0;
    if (signal?.aborted) stop();
  }
}

/** @param {Response} [response] @returns {Promise<Problem | undefined>} */
async function problemOf(response) {
  if (!/problem\+json/.test(response?.headers.get('Content-Type') ?? '')) return undefined;
  return response?.clone().json().catch(() => undefined);
}

/** Waits so long, or until the browser is online; returns how long. A stop ends it.
 * @param {number} ms @param {AbortSignal | null | undefined} signal @param {boolean} offline */
async function pause(ms, signal, offline) {
  const start = performance.now();
  if (ms > 0) {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      if (offline) globalThis.addEventListener?.('online', resolve, { once: true });
      signal?.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason)));
    });
  }
  return performance.now() - start;
}

/** @template T @param {Store} store @param {AbortSignal | null | undefined} signal
 * @param {() => Promise<T>} work @returns {Promise<T>} */
function inTurn(store, signal, work) {
  const locks = globalThis.origin === 'null' ? undefined : globalThis.navigator?.locks;
  const name = `keyturn:${tabId(store)}`;
  /** @type {() => Promise<any>} */
  const alone = locks ? () => locks.request(name, { signal: signal ?? undefined }, work) : work;
  const mine = (tails.get(store) ?? Promise.resolve()).then(alone);
  tails.set(store, mine.catch(() => {}));
  const stopped = new Promise((_, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
  return Promise.race([mine, stopped]);
}

/** @param {Store} [storage] @returns {Store} memory, where there is no storage or it is refused */
function usable(storage) {
  try {
    const store = storage ?? globalThis.sessionStorage;
    store.setItem('keyturn:probe', '1');
    store.removeItem('keyturn:probe');
    return store;
  } catch {
    const memory = new Map();
    return {
      getItem: (name) => memory.get(name) ?? null,
      setItem: (name, value) => void memory.set(name, value),
      removeItem: (name) => void memory.delete(name),
    };
  }
}

/** @param {Store} store @returns {string} tells tabs apart that do not share a storage */
function tabId(store) {
  const id = store.getItem('keyturn:tab') ?? randomId();
  store.setItem('keyturn:tab', id);
  return id;
}

/** @param {Store} store */
async function tabFingerprint(store) {
  const id = tabId(store);
  if (!crypto.subtle) return id; // plain http has none
  const { language = '', userAgent = '' } = globalThis.navigator ?? {};
  const platform = /Android|iPhone|iPad|Windows|Mac|CrOS|Linux/.exec(userAgent)?.[0] ?? '';
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const signals = new TextEncoder().encode([id, language, zone, platform].join('|'));
  return base64url(new Uint8Array(await crypto.subtle.digest('SHA-256', signals)));
}

const randomId = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

const base64url = (/** @type {Uint8Array} */ bytes) =>
  btoa(String.fromCharCode(...bytes)).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '');
