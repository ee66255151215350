/** client.js as a fetch: which requests it touches, with which key, and what it tells of them. */
import assert from 'node:assert/strict';
import { answer, BODY, CHAT, createFetch, FINGERPRINT, key, lose, play, POST, problem, shown, stage,
  stageFor, test } from './client_stage.mjs';

const KEYS = ['Bearer sk-slipped-in', 'Bearer keyturn', 'Basic dTpw', 'sk-bare'];
const OURS = /^(keyturn|idempotency)-/;

for (const Authorization of KEYS) {
  test(`"${Authorization}" of somebody else never travels to Keyturn.`, async () => {
    const { seen, baseURL, send } = await stage(answer('t1'), answer(), answer(), answer());
    const headers = { ...POST.headers, Authorization };
    await send(CHAT, { ...POST, headers });
    await send('/v1/models', { headers });
    await send('/api/chat', { ...POST, headers });
    await send(new Request(baseURL + CHAT, { ...POST, headers }));
    assert.deepEqual(seen.map(shown), [undefined, undefined, undefined, 'Bearer t1']);
  });
}

test('A visitor’s own key goes in place of all else, and leaves the chain alone.', async () => {
  let ownKey;
  const options = { ownKey: () => ownKey };
  const { seen, send } = await stageFor(options, answer('t1'), answer('x'), answer(), answer('t2'));
  await send(CHAT, POST);
  ownKey = 'sk-of-the-visitor';
  await send(CHAT, { ...POST, headers: { ...POST.headers, Authorization: 'Bearer keyturn' } });
  await send('/v1/models');
  ownKey = '';
  await send(CHAT, POST);
  const expected = [undefined, 'Bearer sk-of-the-visitor', undefined, 'Bearer t1'];
  assert.deepEqual(seen.map(shown), expected);
  assert.equal(seen[1].body, BODY);
  assert.deepEqual(Object.keys(seen[1].headers).filter((name) => OURS.test(name)), []);
});

test('An own key may be said once and for all.', async () => {
  const { seen, send } = await stageFor({ ownKey: 'sk-mine' }, answer(), answer());
  await Promise.all([send(CHAT, POST), send(CHAT, POST)]);
  assert.deepEqual(seen.map(shown), ['Bearer sk-mine', 'Bearer sk-mine']);
});

test('What an own key was refused for is not cured; what was lost is not paid twice.', async () => {
  const malformed = problem(401, 'token_malformed', { chain: 'none' });
  const { seen, send } = await stageFor({ ownKey: 'mine' }, malformed, lose, answer());
  assert.equal((await send(CHAT, POST)).status, 401);
  await assert.rejects(send(CHAT, POST), TypeError);
  assert.equal(seen.length, 2);
});

test('Only a POST to /v1/* gets our headers.', async () => {
  const { seen, send } = await stage(answer('t1'), answer(), answer());
  await send(CHAT, POST);
  await send('/v1/models');
  await send('/api/chat', POST);
  for (const entry of seen.slice(1)) {
    assert.equal(shown(entry), undefined);
    assert.deepEqual(Object.keys(entry.headers).filter((name) => OURS.test(name)), []);
  }
});

test('Requests to other servers pass as they are, with their own Authorization.', async () => {
  const other = await play(answer('theirs'), answer('theirs'), answer('theirs'));
  const { seen, send } = await stage(answer('t1'), answer('t2'));
  await send(CHAT, POST);
  const mine = { ...POST, headers: { Authorization: 'Bearer of-the-other' } };
  await send(other.baseURL + CHAT, mine);
  await send(new URL(other.baseURL + CHAT), mine);
  await send(new Request(other.baseURL + CHAT, mine));
  for (const entry of other.seen) {
    assert.equal(shown(entry), 'Bearer of-the-other');
    assert.deepEqual(Object.keys(entry.headers).filter((name) => OURS.test(name)), []);
    assert.equal(entry.body, BODY);
  }
  await send(CHAT, POST);
  assert.equal(shown(seen[1]), 'Bearer t1');
});

for (const end of ['', '/', '/v1', '/v1/', '//', '/v1//']) {
  test(`With "${end}" at the end of the base every kind of address is understood.`, async () => {
    const acts = Array.from({ length: 5 }, (_, i) => answer(`t${i + 1}`));
    const { seen, baseURL } = await play(...acts);
    const base = end === '/v1' ? new URL(baseURL + end) : baseURL + end;
    const send = createFetch({ baseURL: base, fingerprint: () => FINGERPRINT });
    await send(CHAT, POST);
    await send(CHAT.slice(1), POST);
    await send(baseURL + CHAT, POST);
    await send(new URL(baseURL + CHAT), POST);
    await send(new Request(baseURL + CHAT, POST));
    const tokens = [undefined, ...[1, 2, 3, 4].map((n) => `Bearer t${n}`)];
    assert.deepEqual(seen.map(shown), tokens);
    for (const entry of seen) {
      assert.equal(entry.url, CHAT);
      assert.equal(entry.body, BODY);
      assert.equal(entry.headers['content-type'], 'application/json');
      assert.equal(entry.headers['keyturn-fingerprint'], FINGERPRINT);
    }
  });
}

test('A Keyturn below a path is found there, and its neighbours are strangers.', async () => {
  const { seen, baseURL } = await play(answer('t1'), answer(), answer('t2'));
  const send = createFetch({ baseURL: `${baseURL}/keyturn/v1` });
  await send(CHAT, POST);
  await send(baseURL + CHAT, POST);
  await send(`${baseURL}/keyturn${CHAT}`, POST);
  assert.deepEqual(seen.map((entry) => entry.url), [`/keyturn${CHAT}`, CHAT, `/keyturn${CHAT}`]);
  assert.deepEqual(seen.map(shown), [undefined, undefined, 'Bearer t1']);
});

test('No address talks its way in: what only looks like the base gets no token.', async () => {
  const { send, baseURL } = await stage(answer('t1'));
  const other = await play(answer(), answer(), answer());
  const { host } = new URL(other.baseURL);
  await send(CHAT, POST);
  const tricks = [`//${host}${CHAT}`, `${baseURL}@${host}${CHAT}`, `\\\\${host}${CHAT}`];
  for (const trick of tricks) await send(trick, POST).catch(() => {}); // node knows no page to add
  for (const entry of other.seen) assert.equal(shown(entry), undefined);
});

test('A body that is a stream, a Blob or bytes is whole again when it is sent again.', async () => {
  const bodies = [new Blob([BODY]).stream(), new Blob([BODY]), new TextEncoder().encode(BODY)];
  for (const body of bodies) {
    const { seen, send } = await stage(lose, answer('t1'));
    await send(CHAT, { ...POST, body, duplex: 'half' });
    assert.deepEqual(seen.map((entry) => entry.body), [BODY, BODY]);
    assert.equal(seen[1].headers['content-type'], 'application/json');
  }
});

test('A key of idempotency that the caller chose is used, until it is spent.', async () => {
  const mine = 'a-key-that-the-caller-chose';
  const duplicate = problem(409, 'duplicate_request', { token: 't1' });
  const { seen, send } = await stage(lose, duplicate, answer('t2'));
  await send(CHAT, { ...POST, headers: { ...POST.headers, 'Idempotency-Key': mine } });
  assert.deepEqual(seen.slice(0, 2).map(key), [mine, mine]);
  assert.notEqual(key(seen[2]), mine);
});

test('A 401 that is no problem document is the caller’s to read.', async () => {
  const { seen, send } = await stage((response) => response.writeHead(401).end('<h1>Proxy</h1>'));
  assert.equal(await (await send(CHAT, POST)).text(), '<h1>Proxy</h1>');
  assert.equal(seen.length, 1);
});

test('A fingerprint that cannot be had is the caller’s to hear, and costs no token.', async () => {
  let broken = false;
  const fingerprint = async () => {
    if (broken) throw new RangeError('no canvas');
    return FINGERPRINT;
  };
  const { seen, send } = await stageFor({ fingerprint }, answer('t1'), answer('t2'));
  await send(CHAT, POST);
  broken = true;
  await assert.rejects(send(CHAT, POST), RangeError);
  broken = false;
  await send(CHAT, POST);
  assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1']);
});

test('Every attempt is told: what was sent, what came back, what is done about it.', async () => {
  const told = [];
  const onExchange = (exchange) => told.push(exchange);
  const { seen, send } = await stageFor(
    { maxWait: 5, onExchange },
    lose,
    problem(429, 'rate_limited', { after: 1 }),
    problem(401, 'timestamp_stale', { server_time_ms: Date.now() }),
    problem(401, 'token_expired', { chain: 'none' }),
    problem(409, 'duplicate_request', { token: 't2' }),
    problem(502, 'upstream_unavailable', { chain: 'advanced', token: 't3' }),
    answer(),
  );
  const response = await send(CHAT, POST);
  await send('/v1/models');
  assert.deepEqual(told.map(({ attempt }) => attempt), [1, 2, 3, 4, 5, 6]);
  const remedies = ['resend', 'wait', 'right clock', 'new chain', 'successor', undefined];
  assert.deepEqual(told.map(({ remedy }) => remedy), remedies);
  assert.deepEqual(told.map((one) => one.response?.status), [undefined, 429, 401, 401, 409, 502]);
  assert.deepEqual(told.map((one) => one.problem?.code), [undefined, 'rate_limited',
    'timestamp_stale', 'token_expired', 'duplicate_request', 'upstream_unavailable']);
  const keys = seen.slice(0, 6).map(key);
  assert.deepEqual(told.map(({ sent }) => sent.get('Idempotency-Key')), keys);
  assert.equal(told[5].response, response);
  assert.equal((await response.json()).code, 'upstream_unavailable', 'the body is unread');
  for (const { startedAt, ms } of told) {
    assert.ok(Math.abs(Date.now() - startedAt) < 10_000);
    assert.ok(ms >= 0 && ms < 5000);
  }
  const fields = ['attempt', 'ms', 'problem', 'remedy', 'response', 'sent', 'startedAt'];
  assert.deepEqual(Object.keys(told[0]).sort(), fields);
});

test('What goes by an own key is told too; an answer for the caller has no remedy.', async () => {
  const told = [];
  const onExchange = (exchange) => told.push(exchange);
  const { send } = await stageFor({ ownKey: 'sk-x', onExchange }, answer());
  await send(CHAT, POST);
  assert.equal(told[0].sent.get('Authorization'), 'Bearer sk-x');
  assert.deepEqual([told.length, told[0].response.status, told[0].remedy], [1, 200, undefined]);
});

for (const [kind, onExchange] of [
  ['throws', () => { throw new Error('of the listener'); }],
  ['rejects', () => Promise.reject(new Error('of the listener'))],
]) {
  test(`A listener that ${kind} breaks no send.`, async () => {
    const { seen, send } = await stageFor({ onExchange }, answer('t1'), answer('t2'));
    assert.equal(await (await send(CHAT, POST)).text(), 'hello');
    assert.equal((await send(CHAT, POST)).status, 200);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1']);
  });
}
