/** trimHistory: what a long conversation is cut to before it is sent. */
import assert from 'node:assert/strict';
import { test, trimHistory } from './client_stage.mjs';

const user = (content = 'hi') => ({ role: 'user', content });
const assistant = (content = 'hello') => ({ role: 'assistant', content });
const system = { role: 'system', content: 'Be brief.' };
const developer = { role: 'developer', content: 'Be kind.' };
const bytes = (list) => Buffer.byteLength(JSON.stringify(list));

/** So many turns of one message each way. */
const turns = (count) => Array.from({ length: count }, (_, i) =>
  [user(`question ${i}`), assistant(`answer ${i}`)]).flat();

const call = (id, name = 'f') => ({ id, type: 'function', function: { name, arguments: '{}' } });
const calling = (...ids) =>
  ({ role: 'assistant', content: null, tool_calls: ids.map((id) => call(id)) });
const result = (id) => ({ role: 'tool', tool_call_id: id, content: '12' });

test('What fits is the same array, whatever it begins with.', () => {
  const histories = [[], [user()], [system], [assistant(), user()], turns(25), [system, developer]];
  for (const history of histories) assert.equal(trimHistory(history), history);
});

test('Too many messages: the newest stay, beginning with one of the user’s.', () => {
  const history = [...turns(30), user('now')];
  const kept = trimHistory(history);
  assert.deepEqual(kept, history.slice(-49), 'fifty would begin with an answer');
  assert.deepEqual(trimHistory(history, { maxMessages: 4 }), history.slice(-3));
});

test('What is trimmed is a new array; the one that was given stays whole.', () => {
  const history = [...turns(30), user('now')];
  const copy = structuredClone(history);
  assert.notEqual(trimHistory(history), history);
  assert.deepEqual(history, copy);
});

test('Messages of system and developer at the head stay, and count.', () => {
  const history = [system, developer, ...turns(30), user('now')];
  const kept = trimHistory(history, { maxMessages: 7 });
  assert.deepEqual(kept, [system, developer, ...history.slice(-5)]);
  const later = [...turns(3), system, user('now')];
  assert.deepEqual(trimHistory(later, { maxMessages: 3 }), [user('now')], 'that is no head');
});

test('Bytes are those of the JSON in UTF-8, to the byte.', () => {
  const old = [user('a'.repeat(50)), assistant('grüß 😀')];
  const history = [system, ...old, user('😀'.repeat(20)), assistant()];
  const rest = [system, ...history.slice(3)];
  assert.equal(trimHistory(history, { maxBytes: bytes(history) }), history);
  assert.deepEqual(trimHistory(history, { maxBytes: bytes(history) - 1 }), rest);
  const more = [...rest, user()];
  assert.deepEqual(trimHistory([...history, user()], { maxBytes: bytes(more) }), more);
});

test('The last message of the user is always kept, even where it alone is too much.', () => {
  const long = user('x'.repeat(300));
  const history = [system, ...turns(2), long, assistant('…')];
  assert.deepEqual(trimHistory(history, { maxBytes: 100 }), [system, long, assistant('…')]);
  const untouched = [system, assistant('x'.repeat(300)), assistant()];
  assert.equal(trimHistory(untouched, { maxBytes: 100 }), untouched, 'there is nowhere to begin');
});

test('A tool’s call and its results stay together, in Chat Completions.', () => {
  const history = [user('1'), calling('a', 'b'), result('a'), result('b'), assistant('so'),
    user('2'), calling('c'), result('c'), assistant('done'), user('3')];
  for (let most = 1; most <= history.length; most += 1) {
    const kept = trimHistory(history, { maxMessages: most });
    assert.equal(kept[0].role, 'user');
    const called = kept.flatMap((message) => message.tool_calls ?? []).map(({ id }) => id);
    const answered = kept.flatMap((message) => message.tool_call_id ?? []);
    assert.deepEqual(answered, called);
  }
});

test('A call and its output stay together, in Responses, also around a message.', () => {
  const history = [
    { type: 'message', role: 'user', content: 'old' },
    { type: 'message', role: 'assistant', content: 'old' },
    { role: 'user', content: 'how is it?' },
    { type: 'reasoning', id: 'rs_1', summary: [] },
    { type: 'function_call', call_id: 'c1', name: 'f', arguments: '{}' },
    { role: 'user', content: 'hurry' },
    { type: 'function_call_output', call_id: 'c1', output: '12' },
    { role: 'assistant', content: '12' },
    { role: 'user', content: 'thanks' },
  ];
  assert.deepEqual(trimHistory(history, { maxMessages: 8 }), history.slice(2));
  assert.deepEqual(trimHistory(history, { maxMessages: 5 }), history.slice(8), 'not "hurry"');
});

test('A call that never got its output holds nothing back.', () => {
  const lost = { type: 'function_call', call_id: 'c1', name: 'f', arguments: '{}' };
  const history = [user('1'), lost, ...turns(10), user('now')];
  assert.deepEqual(trimHistory(history, { maxMessages: 3 }), history.slice(-3));
});

test('Nulls where a message has no tools, as servers send them, are no tools.', () => {
  const nulls = { tool_calls: null, tool_call_id: null, call_id: null };
  const history = turns(10).map((message) => ({ ...message, ...nulls }));
  assert.deepEqual(trimHistory(history, { maxMessages: 4 }), history.slice(-4));
});

test('A long history is not written out again for every message.', () => {
  const history = [...turns(5000), user('now')];
  const start = performance.now();
  assert.equal(trimHistory(history).length, 49);
  assert.ok(performance.now() - start < 8000);
});
