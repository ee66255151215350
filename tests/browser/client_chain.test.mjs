/** client.js keeps the chain: each turn shows the last one's successor, also after a loss. */
import assert from 'node:assert/strict';
import { answer, BODY, CHAT, createFetch, FakeStorage, FINGERPRINT, gate, key, lose, OTHER, play,
  POST, problem, shown, ahead, stage, test } from './client_stage.mjs';

const unknown = problem(503, 'store_unavailable', { chain: 'unknown' });
const reused = (chain) => problem(401, 'token_reused', { chain });
const duplicate = (token) => problem(409, 'duplicate_request', { chain: 'advanced', token });
const CONFLICT = problem(422, 'idempotency_conflict', { chain: 'kept' });

test('A first turn carries time, fingerprint and idempotency key, and no token.', async () => {
  const { seen, send } = await stage(answer('t1'));
  const response = await send(CHAT, POST);
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

test('A clock of the last century, whose time has too few digits, is corrected too.', async () => {
  const malformed = problem(400, 'timestamp_malformed', { server_time_ms: Date.now() + 5000 });
  const { seen, send } = await stage(malformed, answer('t1'));
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.ok(ahead(seen[1]) > 2000);
});

test('A second stale timestamp in one send is the caller’s to read.', async () => {
  const stale = problem(401, 'timestamp_stale', { server_time_ms: 1_795_300_000_000 });
  const { seen, send } = await stage(stale, stale, answer('t1'));
  const response = await send(CHAT, POST);
  assert.equal((await response.json()).code, 'timestamp_stale');
  assert.equal(seen.length, 2);
});

test('A duplicate takes the successor and is sent once more with a new key.', async () => {
  const { seen, send } = await stage(duplicate('t5'), answer('t6'), answer('t7'));
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(shown(seen[1]), 'Bearer t5');
  assert.notEqual(key(seen[1]), key(seen[0]));
  await send(CHAT, POST);
  assert.equal(shown(seen[2]), 'Bearer t6');
});

test('A second duplicate in one send is the caller’s, its successor is kept.', async () => {
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

test('An answer that was lost after its turn was paid is recovered.', async () => {
  const { seen, send } = await stage(answer('t1'), lose, duplicate('t2'), answer('t3'));
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1', 'Bearer t2']);
  assert.equal(key(seen[2]), key(seen[1]));
  assert.notEqual(key(seen[3]), key(seen[2]));
});

test('A connection lost twice is the caller’s TypeError; the same message goes on.', async () => {
  const { seen, send } = await stage(answer('t1'), lose, lose, duplicate('t2'), answer('t3'));
  await send(CHAT, POST);
  await assert.rejects(send(CHAT, POST), TypeError);
  assert.equal(seen.length, 3);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.deepEqual(seen.slice(1).map(shown), [...Array(3).fill('Bearer t1'), 'Bearer t2']);
  assert.equal(key(seen[3]), key(seen[1]), 'to its server it is one and the same send');
});

test('Another message than the lost one does not show the token that may be spent.', async () => {
  const { seen, send } = await stage(answer('t1'), lose, lose, answer('u1'), answer('u2'));
  await send(CHAT, POST);
  await assert.rejects(send(CHAT, POST), TypeError);
  assert.equal((await send(CHAT, OTHER)).status, 200);
  await send(CHAT, OTHER);
  assert.deepEqual(seen.slice(3).map(shown), [undefined, 'Bearer u1']);
  assert.notEqual(key(seen[3]), key(seen[1]));
});

for (const [sentence, act] of [['whose store does not know', unknown],
  ['that is a stranger’s', (response) => response.writeHead(502).end('<h1>Bad Gateway</h1>')]]) {
  test(`After an answer ${sentence}, the token is shown again with its key alone.`, async () => {
    const { seen, send } = await stage(answer('t1'), act, act, duplicate('t2'), answer('t3'));
    await send(CHAT, POST);
    assert.ok((await send(CHAT, POST)).status > 500);
    assert.ok((await send(CHAT, POST)).status > 500);
    await send(CHAT, POST);
    assert.deepEqual(seen.map(shown).slice(1), [...Array(3).fill('Bearer t1'), 'Bearer t2']);
    assert.deepEqual([key(seen[2]), key(seen[3])], [key(seen[1]), key(seen[1])]);
  });

  test(`After an answer ${sentence}, another message begins a new chain.`, async () => {
    const { seen, send } = await stage(answer('t1'), act, answer('u1'));
    await send(CHAT, POST);
    await send(CHAT, POST);
    assert.equal((await send(CHAT, OTHER)).status, 200);
    assert.equal(shown(seen[2]), undefined);
  });
}

test('A lost turn that can no longer be recovered is sent on a new chain.', async () => {
  const { seen, send } = await stage(answer('t1'), lose, CONFLICT, answer('u1'));
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1', undefined]);
  assert.equal(new Set(seen.map(key)).size, 3);
});

test('A refusal from before the chain was asked does not make a lost token good.', async () => {
  const limited = problem(429, 'rate_limited', { chain: 'kept' });
  const { seen, send, storage } = await stage(answer('t1'), lose, limited, answer('u1'));
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 429);
  assert.equal(storage.token(), undefined);
  await send(CHAT, OTHER);
  assert.equal(shown(seen[3]), undefined);
});

test('While a token is in flight a reload cannot show it; a refusal gives it back.', async () => {
  const held = gate(problem(422, 'invalid_request', { chain: 'kept' }));
  const { seen, send, storage } = await stage(answer('t1'), held.act, answer('t2'));
  await send(CHAT, POST);
  assert.equal(storage.token(), 't1');
  const sent = send(CHAT, POST);
  await held.arrived;
  assert.equal(storage.token(), undefined);
  held.open();
  assert.equal((await sent).status, 422);
  assert.equal(storage.token(), 't1');
});

const CHAIN_ENDS = [
  ['token_expired', 'none', problem(401, 'token_expired', { chain: 'none' })],
  ['token_forged', 'none', problem(401, 'token_forged', { chain: 'none' })],
  ['token_malformed', 'none', problem(401, 'token_malformed', { chain: 'none' })],
  ['chain_unknown', 'none', problem(401, 'chain_unknown', { chain: 'none' })],
  ['chain_revoked', 'revoked', problem(401, 'chain_revoked', { chain: 'revoked' })],
  ['token_reused', 'revoked', reused('revoked')],
  ['token_reused', 'kept', reused('kept')],
  ['fingerprint_mismatch', 'kept', problem(403, 'fingerprint_mismatch', { chain: 'kept' })],
];

for (const [code, chain, refuse] of CHAIN_ENDS) {
  test(`After ${code} (chain ${chain}) a new chain is started, once.`, async () => {
    const { seen, send } = await stage(answer('t1'), refuse, answer('u1'), answer('u2'));
    await send(CHAT, POST);
    assert.equal((await send(CHAT, POST)).status, 200);
    await send(CHAT, POST);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', undefined, 'Bearer u1']);
    assert.equal(new Set(seen.map(key)).size, 4);
    assert.equal(seen[2].body, BODY);
  });

  test(`A second ${code} (chain ${chain}) in one send is the caller’s to read.`, async () => {
    const { seen, send } = await stage(answer('t1'), refuse, refuse, answer('u1'));
    await send(CHAT, POST);
    assert.equal((await (await send(CHAT, POST)).json()).code, code);
    assert.equal(seen.length, 3);
  });
}

test('A first turn whose chain is refused begins anew under a new key.', async () => {
  const revoked = problem(401, 'chain_revoked', { chain: 'revoked' });
  const { seen, send } = await stage(revoked, answer('t1'));
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.deepEqual(seen.map(shown), [undefined, undefined]);
  assert.notEqual(key(seen[1]), key(seen[0]));
});

for (const [status, code] of [[403, 'visitor_blocked'], [422, 'invalid_request'],
  [422, 'idempotency_conflict'], [413, 'payload_too_large'], [404, 'not_found']]) {
  test(`After ${code} the answer is the caller’s, and the token stays good.`, async () => {
    const { seen, send } = await stage(answer('t1'), problem(status, code), answer('t2'));
    await send(CHAT, POST);
    assert.equal((await (await send(CHAT, POST)).json()).code, code);
    await send(CHAT, OTHER);
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
  const stale = problem(401, 'timestamp_stale', { server_time_ms: Date.now() });
  const gone = problem(401, 'token_expired', { chain: 'none' });
  const acts = [answer('t1'), lose, stale, gone, duplicate('u1'), answer('u2')];
  const { seen, send } = await stage(...acts);
  await send(CHAT, POST);
  assert.equal((await send(CHAT, POST)).status, 200);
  assert.equal(shown(seen[5]), 'Bearer u1');
});

test('A reload of the page goes on with the same chain and fingerprint.', async () => {
  const { seen, baseURL } = await play(answer('t1'), answer('t2'), answer('x1'));
  const storage = new FakeStorage();
  await createFetch({ baseURL, storage })(CHAT, POST);
  await createFetch({ baseURL, storage })(CHAT, POST);
  await createFetch({ baseURL, storage: new FakeStorage() })(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', undefined]);
  const prints = seen.map((entry) => entry.headers['keyturn-fingerprint']);
  for (const print of prints) assert.match(print, /^[0-9a-f]{64}$/);
  assert.equal(prints[1], prints[0]);
  assert.notEqual(prints[2], prints[0]);
});

test('Whoever empties the storage ends the chain; the page keeps its fingerprint.', async () => {
  const { seen, baseURL } = await play(answer('t1'), answer('u1'), answer('u2'));
  const storage = new FakeStorage();
  const send = createFetch({ baseURL, storage });
  await send(CHAT, POST);
  storage.items.clear();
  await send(CHAT, POST);
  await send(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, undefined, 'Bearer u1']);
  assert.equal(new Set(seen.map((entry) => entry.headers['keyturn-fingerprint'])).size, 1);
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
