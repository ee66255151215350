/**
 * A fetch that turns the key: every POST to `/v1/*` shows one token and takes its successor.
 *
 * The law: one request at a time holds the token, until its headers are there; each remedy is
 * tried at most once per send; whatever is then still refused is the caller's to read.
 */

/** @typedef {Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>} Store */

const NEW_CHAIN = new Set(['token_malformed', 'token_forged', 'token_expired', 'token_reused',
  'chain_unknown', 'chain_revoked', 'fingerprint_mismatch']);

/** @type {WeakMap<Store, Promise<unknown>>} the queues' ends: who shares a token shares a queue */
const tails = new WeakMap();

/**
 * Returns a fetch that passes the gate, and leaves every other request as it is.
 * @param {object} [options]
 * @param {string} [options.baseURL] where Keyturn is; default: the origin of this page
 * @param {string | (() => string | Promise<string>)} [options.fingerprint] default: this tab's
 * @param {Store} [options.storage] keeps the token; default: sessionStorage, else memory
 * @returns {(input: RequestInfo | URL, init?: RequestInit) => Promise<Response>}
 */
export function createFetch({ baseURL = '', fingerprint, storage } = {}) {
  const root = new URL(`${baseURL.replace(/(\/v1)?\/*$/, '')}/`, globalThis.location?.href).href;
  const store = usable(storage);
  const slot = `keyturn:token:${root}`;
  const print = fingerprint ?? (() => tabFingerprint(store));
  let offset = 0; // milliseconds by which this clock is behind the server's

  /** @param {Request} request @param {string | null} token @param {string} key */
  async function headersFor(request, token, key) {
    const headers = new Headers(request.headers);
    headers.delete('Authorization');
    if (token) headers.set('Authorization', `Bearer ${token}`);
    headers.set('Idempotency-Key', key);
    headers.set('Keyturn-Fingerprint', typeof print === 'string' ? print : await print());
    headers.set('Keyturn-Timestamp', String(Date.now() + offset));
    return headers;
  }

  /** @param {Response} response what may be tried before the caller sees it */
  async function remedyFor(response) {
    if (![401, 403, 409].includes(response.status)) return undefined;
    const problem = await response.clone().json().catch(() => undefined);
    if (problem?.code === 'timestamp_stale' && Number.isSafeInteger(problem.server_time_ms)) {
      offset = problem.server_time_ms - Date.now();
      return 'right clock';
    }
    if (problem?.code === 'duplicate_request') return 'successor';
    return NEW_CHAIN.has(problem?.code) ? 'new chain' : undefined;
  }

  /** @param {Request} request @param {ArrayBuffer} body @param {AbortSignal | null} [signal] */
  async function turn(request, body, signal) {
    const tried = new Set();
    let key = request.headers.get('Idempotency-Key') ?? randomId();
    for (;;) {
      const headers = await headersFor(request, store.getItem(slot), key);
      const response = await fetch(request, { headers, body, signal }).catch((error) => {
        if (!(error instanceof TypeError) || tried.has('resend')) throw error;
      });
      const successor = response?.headers.get('Keyturn-Token');
      if (successor) store.setItem(slot, successor);
      const remedy = response ? await remedyFor(response) : 'resend';
      if (response && (!remedy || tried.has(remedy))) return response;
      tried.add(remedy);
      if (remedy === 'new chain') store.removeItem(slot);
      if (remedy !== 'resend' && remedy !== 'right clock') key = randomId();
    }
  }

  return async (input, init) => {
    const place = input instanceof Request ? input : String(input).replace(/^\/(?!\/)/, () => root);
    const request = new Request(typeof place === 'string' ? new URL(place, root) : place, init);
    // The given signal, not request.signal: Node 20 collects that one while the answer streams.
    const signal = init?.signal ?? /** @type {Request} */ (input).signal;
    const ownKey = /^Bearer sk-/i.test(request.headers.get('Authorization') ?? '');
    const gated = request.method === 'POST' && request.url.startsWith(`${root}v1/`) && !ownKey;
    if (!gated) return fetch(request, { signal });
    const body = await request.arrayBuffer();
    return inTurn(store, signal, () => turn(request, body, signal));
  };
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

/** @template T @param {Store} store @param {AbortSignal | null | undefined} signal
 * @param {() => Promise<T>} work @returns {Promise<T>} */
function inTurn(store, signal, work) {
  const mine = (tails.get(store) ?? Promise.resolve()).then(work);
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

/** @param {Store} store */
async function tabFingerprint(store) {
  const id = store.getItem('keyturn:tab') ?? randomId();
  store.setItem('keyturn:tab', id);
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
