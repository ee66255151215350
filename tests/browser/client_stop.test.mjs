/** client.js and a pressed stop: the caller hears it at once, and the chain goes on. */
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { answer, CHAT, endless, eventually, gate, key, OTHER, POST, problem, shown, stage, stageFor,
  test } from './client_stage.mjs';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

const STOPPED = { name: 'AbortError' };

/** A send that is under way, its server holding back the headers, and its stop. */
async function underWay(send, held, init = POST) {
  const stop = new AbortController();
  const sent = send(CHAT, { ...init, signal: stop.signal });
  sent.catch(() => {});
  await held.arrived;
  return { sent, stop };
}

describe('A stop', { concurrency: true }, () => {
  test('In mid-stream it keeps the chain: the token came with the headers.', async () => {
    const { seen, send } = await stage(endless('t1'), answer('t2'));
    const stop = new AbortController();
    const response = await send(CHAT, { ...POST, signal: stop.signal });
    stop.abort();
    await assert.rejects(response.text(), STOPPED);
    await seen[0].closed;
    await send(CHAT, POST);
    assert.equal(shown(seen[1]), 'Bearer t1');
  });

  for (const [whose, ownKey] of [['the operator’s', undefined], ['an own', 'sk-x']]) {
    test(`It reaches a stream on ${whose} key, also after a garbage collection.`, async () => {
      const { seen, send } = await stageFor({ ownKey }, endless('t1'));
      const stop = new AbortController();
      const response = await send(CHAT, { ...POST, signal: stop.signal });
      for (let round = 0; round < 5; round += 1) {
        collectGarbage();
        await new Promise(setImmediate);
      }
      const ended = assert.rejects(response.text(), STOPPED);
      stop.abort();
      await ended;
      await seen[0].closed;
    });
  }

  test('Before the headers it is heard at once, and their token is still taken.', async () => {
    const held = gate(endless('t2'));
    const { seen, send } = await stage(answer('t1'), held.act, answer('t3'));
    await send(CHAT, POST);
    const { sent, stop } = await underWay(send, held);
    const start = performance.now();
    stop.abort();
    await assert.rejects(sent, STOPPED);
    const next = send(CHAT, OTHER);
    held.open();
    assert.equal((await next).status, 200);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t2']);
    await seen[1].closed;
    assert.ok(performance.now() - start < 2900, 'sooner than if no headers had come');
  });

  test('Before headers that refuse, it is sent no second time; the token is back.', async () => {
    const stale = { chain: 'kept', server_time_ms: Date.now() };
    const held = gate(problem(401, 'timestamp_stale', stale));
    const told = [];
    const onExchange = ({ remedy }) => told.push(remedy);
    const acts = [answer('t1'), held.act, answer('t2')];
    const { seen, send } = await stageFor({ onExchange }, ...acts);
    await send(CHAT, POST);
    const { sent, stop } = await underWay(send, held);
    stop.abort();
    held.open();
    await assert.rejects(sent, STOPPED);
    assert.equal((await send(CHAT, OTHER)).status, 200);
    assert.deepEqual(seen.map((one) => one.body), [POST, POST, OTHER].map((one) => one.body));
    assert.equal(shown(seen[2]), 'Bearer t1');
    assert.deepEqual(told, [undefined, undefined, undefined], 'nothing is done about it');
  });

  test('Before headers that do not come, the next send waits, then starts anew.', async () => {
    const held = gate(answer('t2'));
    const { seen, send } = await stage(answer('t1'), held.act, answer('u1'), answer('u2'));
    await send(CHAT, POST);
    const { sent, stop } = await underWay(send, held);
    const start = performance.now();
    stop.abort();
    await assert.rejects(sent, STOPPED);
    assert.equal((await send(CHAT, OTHER)).status, 200);
    const took = (performance.now() - start) / 1000;
    assert.ok(took > 2.9 && took < 9, `${took} s`);
    await send(CHAT, OTHER);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', undefined, 'Bearer u1']);
    await seen[1].closed;
  });

  test('After it the same message again finds the chain that it left.', async () => {
    const held = gate(answer('never seen'));
    const duplicate = problem(409, 'duplicate_request', { chain: 'advanced', token: 't2' });
    const { seen, send } = await stage(answer('t1'), held.act, duplicate, answer('t3'));
    await send(CHAT, POST);
    const { sent, stop } = await underWay(send, held);
    stop.abort();
    await assert.rejects(sent, STOPPED);
    assert.equal((await send(CHAT, POST)).status, 200);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1', 'Bearer t1', 'Bearer t2']);
    assert.equal(key(seen[2]), key(seen[1]));
  });

  test('On an own key it hangs up at once, whatever the server does.', async () => {
    const held = gate(answer());
    const { seen, send } = await stageFor({ ownKey: 'sk-x' }, held.act);
    const { sent, stop } = await underWay(send, held);
    const start = performance.now();
    stop.abort();
    await assert.rejects(sent, STOPPED);
    await seen[0].closed;
    assert.ok(performance.now() - start < 2900, 'sooner than it would be on the chain');
  });

  test('While a send queues, it ends it at once and it reaches no server.', async () => {
    const held = gate(answer('t1'));
    const { seen, send } = await stage(held.act, answer('t2'));
    const first = send(CHAT, POST);
    await held.arrived;
    const stop = new AbortController();
    const queued = send(CHAT, { ...OTHER, signal: stop.signal });
    stop.abort();
    await assert.rejects(queued, STOPPED);
    await assert.rejects(send(CHAT, { ...OTHER, signal: AbortSignal.abort() }), STOPPED);
    held.open();
    await first;
    await send(CHAT, POST);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1']);
  });

  test('While the fingerprint is made, it reaches no server and costs no token.', async () => {
    let making = () => {};
    const fingerprint = async () => (making(), 'fingerprint-of-a-test');
    const { seen, send } = await stageFor({ fingerprint }, answer('t1'), answer('t2'));
    await send(CHAT, POST);
    const stop = new AbortController();
    making = () => stop.abort();
    await assert.rejects(send(CHAT, { ...POST, signal: stop.signal }), STOPPED);
    await send(CHAT, OTHER);
    assert.deepEqual(seen.map(shown), [undefined, 'Bearer t1']);
  });

  test('It is that of a Request, where no other was given.', async () => {
    const { seen, send, baseURL } = await stage(endless('t1'));
    const stop = new AbortController();
    const request = new Request(baseURL + CHAT, { ...POST, signal: stop.signal });
    const response = await send(request);
    stop.abort();
    await assert.rejects(response.text(), STOPPED);
    await seen[0].closed;
  });

  test('One signal may stop many sends, and what has ended is not disturbed.', async () => {
    const { seen, send } = await stage(answer('t1'), endless('t2'), answer('t3'));
    const stop = new AbortController();
    const done = await send(CHAT, { ...POST, signal: stop.signal });
    assert.equal(await done.text(), 'hello');
    const response = await send(CHAT, { ...POST, signal: stop.signal });
    stop.abort();
    await assert.rejects(response.text(), STOPPED);
    await eventually(async () => (await send(CHAT, POST)).status === 200);
    assert.equal(shown(seen[2]), 'Bearer t2');
  });
});
