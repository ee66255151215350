// Vercel's AI SDK in a page without a login. Keyturn needs the lines that are marked: three for
// either provider.
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { streamText } from 'ai';
import { createFetch } from 'http://localhost:8000/client.js'; // Keyturn

// This one asks by Responses; openai.chat('…') asks by Chat Completions.
const openai = createOpenAI({
  baseURL: 'http://localhost:8000/v1', // Keyturn
  fetch: createFetch({ baseURL: 'http://localhost:8000' }), // Keyturn
  apiKey: 'keyturn', // any word: it is not sent
});

// This one asks by Chat Completions.
const compatible = createOpenAICompatible({
  baseURL: 'http://localhost:8000/v1', // Keyturn
  fetch: createFetch({ baseURL: 'http://localhost:8000' }), // Keyturn
  name: 'keyturn',
});

const messages = [];

/** Takes a turn; `show` gets the answer as it comes. */
async function ask(model, text, show) {
  const question = { role: 'user', content: text };
  // client.js waits and sends again where that helps.
  const { stream } = streamText({
    model, messages: [...messages, question], maxRetries: 0,
  });
  let answer = '';
  for await (const part of stream) {
    if (part.type === 'error') throw part.error; // textStream would just end
    if (part.type !== 'text-delta') continue;
    answer += part.text;
    show(part.text);
  }
  messages.push(question, { role: 'assistant', content: answer });
}

const show = (piece) => document.body.append(piece);
await ask(openai('gpt-4.1-mini'), 'Good morning!', show);
await ask(compatible('gpt-4.1-mini'), 'And again.', show);
