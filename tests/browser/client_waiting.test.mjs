/** client.js waits: as long as it is told to, as long as it may, and without holding up a stop. */
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { answer, assertWaited, CHAT, gaps, key, lose, OTHER, POST, problem, shown, stageFor,
  test } from './client_stage.mjs';

const limited = problem(429, 'rate_limited', { chain: 'kept', after: 1 });
const LONG = 15; // seconds that nothing here waits for
const AT_ONCE = 7; // on a busy machine

/** How many seconds this took. */
async function timed(work) {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

describe('Waiting', { concurrency: true }, () => {
  for (const [status, code] of [[429, 'rate_limited'], [429, 'start_limited'],
    [429, 'too_many_streams'], [503, 'overloaded'], [503, 'store_unavailable']]) {
    test(`${code} is waited out: same token, same key, and a new time.`, async () => {
      const refuse = problem(status, code, { chain: 'kept', after: 1 });
      const { seen, send } = await stageFor({}, answer('t1'), refuse, answer('t2'));
      await send(CHAT, POST);
      assert.equal((await send(CHAT, POST)).status, 200);
      assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1']);
      assert.equal(key(seen[2]), key(seen[1]));
      const [before, after] = seen.slice(1).map((one) => one.headers['keyturn-timestamp']);
      assert.ok(Number(after) - Number(before) >= 980);
      assertWaited(gaps(seen)[1], 1);
    });
  }

  test('An own key waits too.', async () => {
    const { seen, send } = await stageFor({ ownKey: 'sk-x' }, limited, answer());
    assert.equal((await send(CHAT, POST)).status, 200);
    assertWaited(gaps(seen)[0], 1);
  });

  test('A store that does not know whether it admitted is asked again, and tells.', async () => {
    const unknown = problem(503, 'store_unavailable', { chain: 'unknown', after: 1 });
    const duplicate = problem(409, 'duplicate_request', { token: 't2' });
    const acts = [answer('t1'), unknown, duplicate, answer('t3')];
    const { seen, send } = await stageFor({}, ...acts);
    await send(CHAT, POST);
    assert.equal((await send(CHAT, POST)).status, 200);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1', 'Bearer t2']);
  });

  for (const [status, code, more] of [
    [429, 'budget_visitor', { chain: 'kept' }],
    [503, 'budget_exhausted', { chain: 'kept' }],
    [503, 'paused', { chain: 'kept' }],
    [503, 'upstream_rate_limited', { chain: 'advanced', token: 't2' }],
    [503, 'overloaded', { chain: 'advanced', token: 't2' }],
    [504, 'upstream_timeout', { chain: 'advanced', token: 't2' }],
    [500, 'internal_error', {}],
  ]) {
    test(`${code} is the caller’s at once (chain ${more.chain}).`, async () => {
      const refuse = problem(status, code, { ...more, after: LONG });
      const { seen, send } = await stageFor({}, answer('t1'), refuse, answer('t3'));
      await send(CHAT, POST);
      let response;
      const took = await timed(async () => (response = await send(CHAT, POST)));
      assert.equal((await response.json()).code, code);
      assert.ok(took < AT_ONCE);
      await send(CHAT, POST);
      assert.equal(shown(seen[2]), `Bearer ${more.token ?? 't1'}`);
    });
  }

  test('A longer wait than it may be is the caller’s at once, with its Retry-After.', async () => {
    const later = problem(429, 'rate_limited', { chain: 'kept', after: 31 });
    const { seen, send } = await stageFor({}, answer('t1'), later, answer('t2'));
    await send(CHAT, POST);
    let response;
    const took = await timed(async () => (response = await send(CHAT, POST)));
    assert.deepEqual([response.status, response.headers.get('Retry-After')], [429, '31']);
    assert.ok(took < AT_ONCE);
    await send(CHAT, POST);
    assert.equal(shown(seen[2]), 'Bearer t1');
  });

  test('All waits of a send count together.', async () => {
    const { seen, send } = await stageFor({ maxWait: 3 }, ...Array(9).fill(limited));
    assert.equal((await send(CHAT, POST)).status, 429);
    assert.ok(seen.length > 1 && seen.length < 5, 'a second each at least');
  });

  test('With maxWait 0 nothing is waited for.', async () => {
    const { seen, send } = await stageFor({ maxWait: 0 }, limited, answer('t1'));
    assert.equal((await send(CHAT, POST)).status, 429);
    assert.equal(seen.length, 1);
  });

  test('Many that wait for the same second do not come back in the same moment.', async () => {
    const busy = problem(503, 'overloaded', { chain: 'kept', after: 4 });
    const backs = await Promise.all(Array.from({ length: 8 }, async () => {
      const { seen, send } = await stageFor({}, busy, answer('t1'));
      await send(CHAT, POST);
      assertWaited(gaps(seen)[0], 4);
      return gaps(seen)[0];
    }));
    assert.ok(Math.max(...backs) - Math.min(...backs) > 0.2, `${backs}`);
  });

  test('A send that waits keeps its place: no other burns what it waits for.', async () => {
    const { seen, send } = await stageFor({}, answer('t1'), limited, answer('t2'), answer('t3'));
    await send(CHAT, POST);
    await Promise.all([send(CHAT, POST), send(CHAT, OTHER)]);
    assert.deepEqual(seen.map((one) => one.body), [POST, POST, POST, OTHER].map((one) => one.body));
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1', 'Bearer t2']);
  });

  test('A stop while waiting ends at once, and frees the token for the next.', async () => {
    const busy = problem(503, 'overloaded', { chain: 'kept', after: LONG });
    let waits;
    const waiting = new Promise((resolve) => (waits = resolve));
    const onExchange = ({ remedy }) => remedy === 'wait' && waits();
    const { seen, send } = await stageFor({ onExchange }, answer('t1'), busy, answer('t2'));
    await send(CHAT, POST);
    const stop = new AbortController();
    const stopped = send(CHAT, { ...POST, signal: stop.signal });
    await waiting;
    const took = await timed(async () => {
      stop.abort();
      await assert.rejects(stopped, { name: 'AbortError' });
      assert.equal((await send(CHAT, OTHER)).status, 200);
    });
    assert.ok(took < AT_ONCE, `${took} s`);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1']);
  });

  test('A stop may say why, and that is what the caller hears.', async () => {
    const busy = problem(503, 'overloaded', { chain: 'kept', after: LONG });
    const stop = new AbortController();
    const onExchange = () => stop.abort(new RangeError('enough'));
    const { send } = await stageFor({ onExchange }, busy);
    await assert.rejects(send(CHAT, { ...POST, signal: stop.signal }), RangeError);
  });

  test('A lost connection is tried again after growing pauses.', async () => {
    const acts = [answer('t1'), lose, lose, lose, answer('t2')];
    const { seen, send } = await stageFor({}, ...acts);
    await send(CHAT, POST);
    assert.equal((await send(CHAT, POST)).status, 200);
    const [, ...lost] = seen;
    assert.equal(new Set(lost.map(key)).size, 1);
    assert.deepEqual(lost.map(shown), Array(4).fill('Bearer t1'));
    const [first, second, third] = gaps(lost);
    assert.ok(first < second);
    assertWaited(second, 1);
    assertWaited(third, 2);
  });

  test('A connection that stays lost is given up within maxWait.', async () => {
    const { seen, send } = await stageFor({ maxWait: 2 }, ...Array(9).fill(lose));
    await assert.rejects(send(CHAT, POST), TypeError);
    assert.ok(seen.length > 1 && seen.length < 4, 'after 0, 1 and not 2 more seconds');
  });

  test('A server that answers others, and not this, is not asked for long.', async () => {
    const refuse = (response) => lose(response); // as a browser does where an origin is not allowed
    const { seen, send } = await stageFor({ maxWait: 600 }, ...Array(9).fill(refuse));
    await assert.rejects(send(CHAT, POST), TypeError);
    assert.equal(seen.length, 2);
  });

  test('However long it may wait, it is sent six times at most.', async () => {
    const { seen, send } = await stageFor({ maxWait: 600 }, ...Array(9).fill(lose));
    await assert.rejects(send(CHAT, POST), TypeError);
    assert.equal(seen.length, 6);
  });
});
