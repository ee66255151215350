// OpenAI's SDK in a page without a login. Keyturn needs the three lines that are marked.
import OpenAI from 'openai';
import { createFetch } from 'http://localhost:8000/client.js'; // Keyturn

const openai = new OpenAI({
  baseURL: 'http://localhost:8000/v1', // Keyturn
  fetch: createFetch({ baseURL: 'http://localhost:8000' }), // Keyturn
  apiKey: 'keyturn', // any word: it is not sent
  dangerouslyAllowBrowser: true, // there is no key here that could be stolen
  maxRetries: 0, // client.js waits and sends again where that helps
});
const model = 'gpt-4.1-mini';
const messages = [];

/** Takes a turn by Chat Completions; `show` gets the answer as it comes. */
async function ask(text, show) {
  const question = { role: 'user', content: text };
  const stream = await openai.chat.completions.create({
    model, messages: [...messages, question], stream: true,
  });
  let answer = '';
  for await (const { choices: [choice] } of stream) {
    answer += choice?.delta.content ?? '';
    show(choice?.delta.content ?? '');
  }
  messages.push(question, { role: 'assistant', content: answer });
}

/** The same by Responses. */
async function respond(text, show) {
  const question = { role: 'user', content: text };
  const stream = await openai.responses.create({
    model, input: [...messages, question], stream: true,
  });
  let answer = '';
  for await (const event of stream) {
    if (event.type !== 'response.output_text.delta') continue;
    answer += event.delta;
    show(event.delta);
  }
  messages.push(question, { role: 'assistant', content: answer });
}

const show = (piece) => document.body.append(piece);
await ask('Good morning!', show);
await respond('And again.', show);
