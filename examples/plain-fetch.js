// No SDK at all: a fetch that keeps the chain, and a reader of its events.
import { createFetch, readEvents } from 'http://localhost:8000/client.js';

const fetch = createFetch({ baseURL: 'http://localhost:8000' });
const messages = [];

/** Takes a turn; `show` gets the answer as it comes. */
async function ask(text, show) {
  const question = { role: 'user', content: text };
  const response = await fetch('/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ messages: [...messages, question], stream: true }),
  });
  if (!response.ok) throw new Error((await response.json()).detail);
  let answer = '';
  for await (const data of readEvents(response)) {
    if (data === '[DONE]') break;
    const { choices, error } = JSON.parse(data);
    if (error) throw new Error(error.message);
    answer += choices[0].delta.content ?? '';
    show(choices[0].delta.content ?? '');
  }
  messages.push(question, { role: 'assistant', content: answer });
}

const show = (piece) => document.body.append(piece);
await ask('Good morning!', show);
await ask('And again.', show);
