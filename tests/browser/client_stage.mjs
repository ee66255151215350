/** What the tests of client.js stand on: a real HTTP server that plays the failure table. */
import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { after as atEnd, test as promise } from 'node:test';

// Older nodes take a .js file without a package.json for CommonJS; a browser never does.
const source = await readFile(new URL('../../public/client.js', import.meta.url), 'utf8');
export const { createFetch, readEvents, trimHistory } = await import(
  `data:text/javascript,${encodeURIComponent(source)}`
);

globalThis.crypto ??= webcrypto; // node 18 has the global only behind a flag

export const FINGERPRINT = 'fingerprint-of-a-test';
export const CHAT = '/v1/chat/completions';
const saying = (content) => JSON.stringify({ messages: [{ role: 'user', content }] });
export const BODY = saying('grüß dich');
export const POST = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: BODY };
export const OTHER = { ...POST, body: saying('something else') };

export const test = (sentence, proof) => promise(sentence, { timeout: 40_000 }, proof);

const servers = [];
atEnd(() => servers.forEach((server) => (server.closeAllConnections(), server.close())));

/** Starts a server that answers the n-th request by the n-th act, and records all it saw. It is
 * well, and says so unasked for a turn, unless the next act is to lose it. */
export async function play(...acts) {
  const seen = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    const { method, url, headers } = request;
    if (url === '/api/health') return acts[seen.length] === lose ? lose(response) : response.end();
    const entry = { method, url, headers, at: performance.now() };
    entry.closed = new Promise((resolve) => response.on('close', resolve));
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

/** A stage and a client of it that waits for nothing, with a storage of its own. */
export const stage = (...acts) => stageFor({ maxWait: 0 }, ...acts);

/** The same, and a client with these options. */
export async function stageFor(options, ...acts) {
  const { seen, baseURL } = await play(...acts);
  const storage = new FakeStorage();
  const send = createFetch({ baseURL, fingerprint: FINGERPRINT, storage, ...options });
  return { seen, baseURL, storage, send };
}

export class FakeStorage {
  items = new Map();
  getItem = (name) => this.items.get(name) ?? null;
  setItem = (name, value) => void this.items.set(name, value);
  removeItem = (name) => void this.items.delete(name);

  /** The token in it. */
  token() {
    return [...this.items].find(([name]) => name.startsWith('keyturn:token:'))?.[1];
  }
}

export const answer = (token, text = 'hello') => (response) =>
  response.writeHead(200, token ? { 'Keyturn-Token': token } : {}).end(text);

/** An answer that begins and goes on until it is hung up on. */
export const endless = (token) => (response) =>
  response.writeHead(200, { 'Keyturn-Token': token }).write('data: one\n\n');

const RETRY = new Set(['rate_limited', 'start_limited', 'too_many_streams', 'overloaded',
  'store_unavailable']);

/** A refusal with the headers that Keyturn sends with it; `after` is what Retry-After says. */
export const problem = (status, code, { token, after = 7, ...more } = {}) => (response) => {
  const headers = { 'Content-Type': 'application/problem+json' };
  if (token) headers['Keyturn-Token'] = token;
  if (status === 429 || status === 503) headers['Retry-After'] = String(after);
  if (!RETRY.has(code) || token) headers['x-should-retry'] = 'false';
  const body = { type: `urn:keyturn:problem:${code}`, title: code, status, code };
  response.writeHead(status, headers).end(JSON.stringify({ ...body, ...more }));
};

export const lose = (response) => response.socket.destroy();

/** An act that waits until it is let go. */
export function gate(act) {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  let arrive;
  const arrived = new Promise((resolve) => (arrive = resolve));
  const waiting = async (response, entry) => (arrive(), await opened, act(response, entry));
  return { act: waiting, open, arrived };
}

export const shown = (entry) => entry.headers.authorization;
export const key = (entry) => entry.headers['idempotency-key'];
export const ahead = (entry) => Number(entry.headers['keyturn-timestamp']) - Date.now();

/** The seconds between each request and the next. */
export const gaps = (seen) => seen.slice(1).map((entry, i) => (entry.at - seen[i].at) / 1000);

/** Asserts that a wait took so many seconds, a little jitter, and what a busy machine adds. */
export function assertWaited(seconds, expected) {
  assert.ok(seconds > expected - 0.02, `${seconds} s is less than ${expected} s`);
  assert.ok(seconds < expected * 1.25 + 3, `${seconds} s is more than ${expected} s and a quarter`);
}

/** Polls a condition until it holds. */
export async function eventually(holds) {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 5));
}
