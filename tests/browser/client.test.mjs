/**
 * client.js against a real HTTP server that plays the failure table, one answer per request.
 *
 * Run: node --test tests/browser/
 */
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after, test as promise } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

// Older nodes take a .js file without a package.json for CommonJS; a browser never does.
const source = await readFile(new URL('../../public/client.js', import.meta.url), 'utf8');
const { createFetch, readEvents } = await import(`data:text/javascript,${encodeURIComponent(source)}`);

globalThis.crypto ??= webcrypto; // Debian's node is older than the global

const FINGERPRINT = 'fingerprint-of-a-test';
const CHAT = '/v1/chat/completions';
const BODY = JSON.stringify({ messages: [{ role: 'user', content: 'grüß dich' }] });
const POST = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: BODY };
const servers = [];
const test = (sentence, proof) => promise(sentence, { timeout: 10_000 }, proof);

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

after(() => servers.forEach((server) => (server.closeAllConnections(), server.close())));

/** Starts a server that answers the n-th request by the n-th act, and records all it saw. */
async function play(...acts) {
  const seen = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    const entry = { method: request.method, url: request.url, headers: request.headers };
    seen.push(entry);
    const act = acts[seen.length - 1] ?? answer(undefined, 'nothing more to play');
    for await (const chunk of request) chunks.push(chunk);
    entry.body = Buffer.concat(chunks).toString();
    await act(response, entry);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  servers.push(server);
  return { seen, baseURL: `http://127.0.0.1:${server.address().port}` };
}

/** A stage and a client of it with a fingerprint and a storage of its own. */
async function stage(...acts) {
  const { seen, baseURL } = await play(...acts);
  const storage = new FakeStorage();
  const send = createFetch({ baseURL, fingerprint: FINGERPRINT, storage, maxWait: 0 });
  return { seen, baseURL, storage, send };
}

class FakeStorage {
  items = new Map();
  getItem = (name) => this.items.get(name) ?? null;
  setItem = (name, value) => void this.items.set(name, value);
  removeItem = (name) => void this.items.delete(name);
}

const answer = (token, text = 'hello') => (response) =>
  response.writeHead(200, token ? { 'Keyturn-Token': token } : {}).end(text);

const problem = (status, code, { token, ...more } = {}) => (response) => {
  const headers = { 'Content-Type': 'application/problem+json' };
  if (token) headers['Keyturn-Token'] = token;
  if (status === 429 || status === 503) headers['Retry-After'] = '7';
  const body = { type: `urn:keyturn:problem:${code}`, title: code, status, code };
  response.writeHead(status, headers).end(JSON.stringify({ ...body, ...more }));
};

const lose = (response) => response.socket.destroy();

/** An act that waits until it is let go. */
function gate(act) {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  let arrive;
  const arrived = new Promise((resolve) => (arrive = resolve));
  const waiting = async (response, entry) => (arrive(), await opened, act(response, entry));
  return { act: waiting, open, arrived };
}

const shown = (entry) => entry.headers.authorization;
const key = (entry) => entry.headers['idempotency-key'];
const ahead = (entry) => Number(entry.headers['keyturn-timestamp']) - Date.now();

test('A first turn carries time, fingerprint and idempotency key, and no token.', async () => {
  const { seen, send } = await stage(answer('t1'));
  const headers = { ...POST.headers, Authorization: 'Bearer a-placeholder-of-some-sdk' };
  const response = await send(CHAT, { ...POST, headers });
  assert.equal(await response.text(), 'hello');
  assert.match(seen[0].headers['keyturn-timestamp'], /^\d{13}$/);
  assert.ok(Math.abs(ahead(seen[0])) < 5000);
  assert.equal(seen[0].headers['keyturn-fingerprint'], FINGERPRINT);
  assert.match(key(seen[0]), /^[A-Za-z0-9._-]{16,64}$/);
  assert.equal(shown(seen[0]), undefined);
  assert.equal(seen[0].headers['content-type'], 'application/json');
  assert.equal(seen[0].body, BODY);
});

test('Every turn shows the successor that the last one brought, under a new key.', async () => {
  const { seen, send } = await stage(answer('t1'), answer('t2'), answer('t3'));
  for (let turn = 0; turn < 3; turn += 1) await (await send(CHAT, POST)).text();
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t2']);
  assert.equal(new Set(seen.map(key)).size, 3);
});

test('A token is taken with the headers, so that a stopped stream keeps the chain.', async () => {
  const endless = (response) => {
    response.writeHead(200, { 'Keyturn-Token': 't1' }).write('data: first\n\n');
  };
  const { seen, send } = await stage(endless, answer('t2'));
  const stop = new AbortController();
  const response = await send(CHAT, { ...POST, signal: stop.signal });
  stop.abort();
  await assert.rejects(response.text(), { name: 'AbortError' });
  await send(CHAT, POST);
  assert.equal(shown(seen[1]), 'Bearer t1');
});

for (const [whose, Authorization] of [['the operator’s', ''], ['an own', 'Bearer sk-x']]) {
  test(`A stop reaches a stream on ${whose} key, also after a garbage collection.`, async () => {
    const { send } = await stage((response) => response.writeHead(200).write('.'));
    const stop = new AbortController();
    const headers = { Authorization };
    const response = await send(CHAT, { ...POST, headers, signal: stop.signal });
    for (let round = 0; round < 5; round += 1) {
      collectGarbage();
      await new Promise(setImmediate);
    }
    const ended = assert.rejects(response.text(), { name: 'AbortError' });
    stop.abort();
    await ended;
  });
}

test('Parallel sends queue for the token, but not for one another’s answers.', async () => {
  const streams = [];
  const open = (token) => (response) => {
    response.writeHead(200, { 'Keyturn-Token': token }).write('.');
    streams.push(response);
  };
  const { seen, send } = await stage(open('t1'), open('t2'), open('t3'), open('t4'));
  const responses = await Promise.all([1, 2, 3, 4].map(() => send(CHAT, POST)));
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t2', 'Bearer t3']);
  streams.forEach((stream) => stream.end());
  assert.deepEqual(await Promise.all(responses.map((r) => r.text())), ['.', '.', '.', '.']);
});

test('Two fetches over one storage share one queue and one chain.', async () => {
  const { seen, send, baseURL, storage } = await stage(answer('t1'), answer('t2'), answer('t3'));
  const other = createFetch({ baseURL, fingerprint: FINGERPRINT, storage });
  await Promise.all([send(CHAT, POST), other(CHAT, POST), send(CHAT, POST)]);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t2']);
});

test('A clock that is wrong is corrected once and stays corrected.', async () => {
  const hour = 3_600_000;
  const stale = (response) =>
    problem(401, 'timestamp_stale', { chain: 'kept', server_time_ms: Date.now() + hour })(response);
  const { seen, send } = await stage(stale, answer('t1'), answer('t2'));
  assert.equal((await send(CHAT, POST)).status, 200);
  await send(CHAT, POST);
  assert.equal(key(seen[1]), key(seen[0]));
  for (const entry of seen.slice(1)) assert.ok(Math.abs(ahead(entry) - hour) < 5000);
});

test('A second stale timestamp in one send is the caller’s to read.', async () => {
  const stale = problem(401, 'timestamp_stale', { server_time_ms: 1_795_300_000_000 });
  const { seen, send } = await stage(stale, stale, answer('t1'));
  const response = await send(CHAT, POST);
  assert.equal((await response.json()).code, 'timestamp_stale');
  assert.equal(seen.length, 2);
});

test('A duplicate takes the successor and is sent once more with a new key.', async () => {
  const duplicate = problem(409, 'duplicate_request', { chain: 'advanced', token: 't5' });
  const { seen, send } = await stage(duplicate, answer('t6'), answer('t7'));
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(shown(seen[1]), 'Bearer t5');
  assert.notEqual(key(seen[1]), key(seen[0]));
  await send(CHAT, POST);
  assert.equal(shown(seen[2]), 'Bearer t6');
});

test('A second duplicate in one send is the caller’s, its successor is kept.', async () => {
  const duplicate = (token) => problem(409, 'duplicate_request', { token });
  const { seen, send } = await stage(duplicate('t5'), duplicate('t6'), answer('t7'));
  assert.equal((await send(CHAT, POST)).status, 409);
  await send(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t5', 'Bearer t6']);
});

test('A lost connection is sent once more: same key, same token, same body.', async () => {
  const { seen, send } = await stage(answer('t1'), lose, answer('t2'));
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(key(seen[2]), key(seen[1]));
  assert.deepEqual([shown(seen[1]), shown(seen[2])], ['Bearer t1', 'Bearer t1']);
  assert.equal(seen[2].body, BODY);
});

test('A connection that is lost twice is the caller’s TypeError.', async () => {
  const { seen, send } = await stage(lose, lose, answer('t1'));
  await assert.rejects(send(CHAT, POST), TypeError);
  assert.equal(seen.length, 2);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(key(seen[2]), key(seen[1]), 'the same message again is the same send');
});

test('An answer that was lost after its turn was paid is recovered.', async () => {
  const duplicate = problem(409, 'duplicate_request', { chain: 'advanced', token: 't2' });
  const { seen, send } = await stage(answer('t1'), lose, duplicate, answer('t3'));
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1', 'Bearer t2']);
  assert.equal(key(seen[2]), key(seen[1]));
  assert.notEqual(key(seen[3]), key(seen[2]));
});

test('A pressed stop is not sent again, and the next send gets its turn.', async () => {
  const held = gate(lose);
  const { seen, send } = await stage(held.act, answer('t1'));
  const stop = new AbortController();
  const stopped = send(CHAT, { ...POST, signal: stop.signal });
  await held.arrived;
  stop.abort();
  await assert.rejects(stopped, { name: 'AbortError' });
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(seen.length, 2);
  held.open();
});

test('A send that is stopped while it queues ends at once and reaches no server.', async () => {
  const held = gate(answer('t1'));
  const { seen, send } = await stage(held.act, answer('t2'));
  const first = send(CHAT, POST);
  await held.arrived;
  const stopped = send(CHAT, { ...POST, signal: AbortSignal.abort() });
  await assert.rejects(stopped, { name: 'AbortError' });
  held.open();
  await first;
  await send(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1']);
});

const CHAIN_ENDS = [
  [401, 'token_expired', 'none'],
  [401, 'token_forged', 'none'],
  [401, 'token_malformed', 'none'],
  [401, 'chain_unknown', 'none'],
  [401, 'chain_revoked', 'revoked'],
  [401, 'token_reused', 'revoked'],
  [401, 'token_reused', 'kept'],
  [403, 'fingerprint_mismatch', 'kept'],
];

for (const [status, code, chain] of CHAIN_ENDS) {
  test(`After ${code} (chain ${chain}) a new chain is started, once.`, async () => {
    const refusal = problem(status, code, { chain });
    const { seen, send } = await stage(answer('t1'), refusal, answer('u1'), answer('u2'));
    await send(CHAT, POST);
    assert.equal((await send(CHAT, POST)).status, 200);
    await send(CHAT, POST);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', undefined, 'Bearer u1']);
    assert.equal(new Set(seen.map(key)).size, 4);
    assert.equal(seen[2].body, BODY);
  });

  test(`A second ${code} (chain ${chain}) in one send is the caller’s to read.`, async () => {
    const refusal = problem(status, code, { chain });
    const { seen, send } = await stage(answer('t1'), refusal, refusal, answer('u1'));
    await send(CHAT, POST);
    const response = await send(CHAT, POST);
    assert.equal(response.status, status);
    assert.equal((await response.json()).code, code);
    assert.equal(seen.length, 3);
  });
}

test('A first turn whose chain is refused begins anew under a new key.', async () => {
  const { seen, send } = await stage(problem(401, 'chain_revoked'), answer('t1'));
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.deepEqual(seen.map(shown), [undefined, undefined]);
  assert.notEqual(key(seen[1]), key(seen[0]));
});

for (const [status, code] of [[429, 'rate_limited'], [429, 'budget_visitor'],
  [503, 'store_unavailable'], [503, 'overloaded'], [403, 'visitor_blocked'],
  [422, 'idempotency_conflict'], [401, 'byok_key_rejected']]) {
  test(`After ${code} the answer is the caller’s, and the token stays good.`, async () => {
    const { seen, send } = await stage(answer('t1'), problem(status, code), answer('t2'));
    await send(CHAT, POST);
    const response = await send(CHAT, POST);
    assert.equal((await response.json()).code, code);
    assert.equal(response.headers.get('Retry-After'), [429, 503].includes(status) ? '7' : null);
    await send(CHAT, POST);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1']);
  });
}

test('An upstream failure is the caller’s to read, and its token is taken.', async () => {
  const failure = problem(502, 'upstream_unavailable', { chain: 'advanced', token: 't2' });
  const { seen, send } = await stage(answer('t1'), failure, answer('t3'));
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 502);
  await send(CHAT, POST);
  assert.equal(shown(seen[2]), 'Bearer t2');
});

test('Different remedies may follow one another within one send.', async () => {
  const { seen, send } = await stage(
    answer('t1'),
    lose,
    problem(401, 'timestamp_stale', { server_time_ms: Date.now() }),
    problem(401, 'token_expired'),
    problem(409, 'duplicate_request', { token: 'u1' }),
    answer('u2'),
  );
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(shown(seen[5]), 'Bearer u1');
});

test('A 401 that is no problem document is the caller’s to read.', async () => {
  const { seen, send } = await stage((response) => response.writeHead(401).end('<h1>Proxy</h1>'));
  assert.equal(await (await send(CHAT, POST)).text(), '<h1>Proxy</h1>');
  assert.equal(seen.length, 1);
});

test('A visitor’s own key goes in place of all else, and disturbs no chain.', async () => {
  let ownKey;
  const { seen, baseURL } = await play(answer('t1'), answer(), answer('t2'));
  const send = createFetch({ baseURL, fingerprint: FINGERPRINT, ownKey: () => ownKey });
  await send(CHAT, POST);
  ownKey = 'sk-of-the-visitor';
  await send(CHAT, POST);
  ownKey = undefined;
  await send(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer sk-of-the-visitor', 'Bearer t1']);
  assert.ok(!Object.keys(seen[1].headers).some((name) => /^keyturn|^idempotency/.test(name)));
});

test('A key that slipped into a bundle never travels.', async () => {
  const { seen, send } = await stage(answer('t1'), answer(), answer());
  const headers = { Authorization: 'Bearer sk-slipped-in' };
  await send(CHAT, { ...POST, headers });
  await send('/v1/models', { headers });
  await send('/api/chat', { ...POST, headers });
  assert.deepEqual(seen.map(shown), [undefined, undefined, undefined]);
});

test('Only a POST to /v1/* gets our headers.', async () => {
  const { seen, send } = await stage(answer('t1'), answer(), answer());
  await send(CHAT, POST);
  await send('/v1/models');
  await send('/api/chat', POST);
  for (const entry of seen.slice(1)) {
    assert.equal(shown(entry), undefined);
    assert.equal(entry.headers['keyturn-fingerprint'], undefined);
  }
});

test('No other server is ever shown the token.', async () => {
  const other = await play(answer('theirs'));
  const { seen, send } = await stage(answer('t1'), answer('t2'));
  await send(CHAT, POST);
  await send(other.baseURL + CHAT, POST);
  assert.equal(shown(other.seen[0]), undefined);
  assert.equal(other.seen[0].headers['keyturn-fingerprint'], undefined);
  await send(CHAT, POST);
  assert.equal(shown(seen[1]), 'Bearer t1');
});

test('A base that ends in /v1, a full address, a URL and a Request are understood.', async () => {
  const { seen, baseURL } = await play(answer('t1'), answer('t2'), answer('t3'), answer('t4'));
  const send = createFetch({ baseURL: `${baseURL}/v1/`, fingerprint: () => FINGERPRINT });
  await send(CHAT, POST);
  await send(baseURL + CHAT, POST);
  await send(new URL(baseURL + CHAT), POST);
  await send(new Request(baseURL + CHAT, POST));
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t2', 'Bearer t3']);
  for (const entry of seen) {
    assert.equal(entry.url, CHAT);
    assert.equal(entry.body, BODY);
    assert.equal(entry.headers['content-type'], 'application/json');
    assert.equal(entry.headers['keyturn-fingerprint'], FINGERPRINT);
  }
});

test('A body that is a stream is whole again when it is sent again.', async () => {
  const { seen, send } = await stage(lose, answer('t1'));
  await send(CHAT, { ...POST, body: new Blob([BODY]).stream(), duplex: 'half' });
  assert.deepEqual(seen.map((entry) => entry.body), [BODY, BODY]);
});

test('A key that the caller chose is used, until it is spent.', async () => {
  const mine = 'a-key-that-the-caller-chose';
  const duplicate = problem(409, 'duplicate_request', { token: 't1' });
  const { seen, send } = await stage(lose, duplicate, answer('t2'));
  await send(CHAT, { ...POST, headers: { ...POST.headers, 'Idempotency-Key': mine } });
  assert.deepEqual(seen.slice(0, 2).map(key), [mine, mine]);
  assert.notEqual(key(seen[2]), mine);
});

test('A reload of the page goes on with the same chain and fingerprint.', async () => {
  const { seen, baseURL } = await play(answer('t1'), answer('t2'), answer('x1'));
  const storage = new FakeStorage();
  await createFetch({ baseURL, storage })(CHAT, POST);
  await createFetch({ baseURL, storage })(CHAT, POST);
  await createFetch({ baseURL, storage: new FakeStorage() })(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', undefined]);
  const prints = seen.map((entry) => entry.headers['keyturn-fingerprint']);
  for (const print of prints) assert.match(print, /^[A-Za-z0-9_-]{64}$/);
  assert.equal(prints[1], prints[0]);
  assert.notEqual(prints[2], prints[0]);
});

test('One storage keeps the chains of two servers apart.', async () => {
  const [one, two] = [await play(answer('a1'), answer('a2')), await play(answer('b1'))];
  const storage = new FakeStorage();
  await createFetch({ baseURL: one.baseURL, storage })(CHAT, POST);
  await createFetch({ baseURL: two.baseURL, storage })(CHAT, POST);
  await createFetch({ baseURL: one.baseURL, storage })(CHAT, POST);
  assert.equal(shown(two.seen[0]), undefined);
  assert.equal(shown(one.seen[1]), 'Bearer a1');
});

test('Where storage is refused the chain lives in memory.', async () => {
  const { seen, baseURL } = await play(answer('t1'), answer('t2'));
  const refuse = () => {
    throw new DOMException('no', 'SecurityError');
  };
  const storage = { getItem: refuse, setItem: refuse, removeItem: refuse };
  const send = createFetch({ baseURL, storage });
  await send(CHAT, POST);
  await send(CHAT, POST);
  assert.equal(shown(seen[1]), 'Bearer t1');
  assert.equal(seen[1].headers['keyturn-fingerprint'], seen[0].headers['keyturn-fingerprint']);
});

/** A response whose bytes arrive in the given pieces. */
const inPieces = (...pieces) =>
  new Response(
    new ReadableStream({
      pull(stream) {
        if (pieces.length) stream.enqueue(pieces.shift());
        else stream.close();
      },
    }),
  );

async function collect(events) {
  const all = [];
  for await (const event of events) all.push(event);
  return all;
}

for (const [name, border] of [['LF', '\n'], ['CRLF', '\r\n'], ['CR', '\r']]) {
  test(`Events with ${name} are read the same, wherever their bytes are cut.`, async () => {
    const lines = [': keep-alive', '', 'event: x', 'data: {"a":"ü😀"}', 'id: 1', '',
      'data:two', 'data: lines', '', 'data: [DONE]', '', ''];
    const bytes = new TextEncoder().encode(lines.join(border));
    const expected = ['{"a":"ü😀"}', 'two\nlines', '[DONE]'];
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      const pieces = [bytes.slice(0, cut), bytes.slice(cut)];
      assert.deepEqual(await collect(readEvents(inPieces(...pieces))), expected, `cut at ${cut}`);
    }
    const single = Array.from(bytes, (byte) => Uint8Array.of(byte));
    assert.deepEqual(await collect(readEvents(inPieces(...single))), expected);
  });
}

test('An event that was never finished is not yielded.', async () => {
  const bytes = new TextEncoder().encode('data: whole\n\ndata: half');
  assert.deepEqual(await collect(readEvents(inPieces(bytes))), ['whole']);
});

test('Whoever stops reading events hangs up on the server.', async () => {
  let hungUp;
  const closed = new Promise((resolve) => (hungUp = resolve));
  const endless = (response) => {
    response.on('close', hungUp);
    response.writeHead(200).write('data: one\n\n');
  };
  const { send } = await stage(endless);
  for await (const event of readEvents(await send(CHAT, POST))) {
    assert.equal(event, 'one');
    break;
  }
  await closed;
});
