/** readEvents: server-sent events, however their bytes are cut. */
import assert from 'node:assert/strict';
import { CHAT, endless, POST, readEvents, stage, test } from './client_stage.mjs';

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

test('A line separator of Unicode within the data is data.', async () => {
  const bytes = new TextEncoder().encode('data: a\u2028data: b\u0085c\n\n');
  assert.deepEqual(await collect(readEvents(inPieces(bytes))), ['a\u2028data: b\u0085c']);
});

test('An answer without a body has no events.', async () => {
  assert.deepEqual(await collect(readEvents(new Response(null, { status: 204 }))), []);
});

test('Whoever stops reading events hangs up on the server.', async () => {
  const { seen, send } = await stage(endless('t1'));
  for await (const event of readEvents(await send(CHAT, POST))) {
    assert.equal(event, 'one');
    break;
  }
  await seen[0].closed;
});
