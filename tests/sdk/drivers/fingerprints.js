/** Chats with a fingerprint that somebody else makes; `home` lets its maker hear of it. */
import FingerprintJS from '@fingerprintjs/fingerprintjs';
import { Thumbmark } from '@thumbmarkjs/thumbmarkjs';

const PRINTS = {
  fingerprintjs(home) {
    const made = FingerprintJS.load(home ? {} : { monitoring: false }).then((agent) => agent.get());
    return async () => (await made).visitorId;
  },
  thumbmarkjs(home) {
    const made = new Thumbmark(home ? {} : { logging: false }).get();
    return async () => (await made).thumbmark;
  },
};

globalThis.chatWith = async ({ name, home, url }) => {
  const { createFetch } = await import(`${url}/client.js`);
  const fetch = createFetch({ baseURL: url, fingerprint: PRINTS[name](home) });
  const statuses = [];
  for (const content of ['one', 'two']) {
    const body = JSON.stringify({ messages: [{ role: 'user', content }] });
    const headers = { 'Content-Type': 'application/json' };
    const answer = await fetch('/v1/chat/completions', { method: 'POST', headers, body });
    await answer.text();
    statuses.push(answer.status);
  }
  return statuses;
};
