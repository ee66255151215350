/** One chat at a time with any of the SDKs, for whoever holds this page by its strings. */
import * as ai from './ai.js';
import * as langchain from './langchain.js';
import * as openai from './openai.js';

const SDKS = {
  'openai-js create': openai.create,
  'openai-js stream': openai.helper,
  'openai-js responses': openai.responses,
  'ai compatible': ai.compatible,
  'ai openai': ai.openai,
  'langchain': langchain.chat,
};

let chat;

/** Begins a chat with the Keyturn at this URL, through its client.js or by plain fetch. */
async function open({ sdk, url, chained }) {
  const { createFetch } = await import(`${url}/client.js`);
  const baseURL = `${url}/v1`;
  const items = new Map();
  const storage = {
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => void items.set(name, value),
    removeItem: (name) => void items.delete(name),
  };
  const fetch = chained ? createFetch({ baseURL, storage }) : globalThis.fetch.bind(globalThis);
  chat = { send: SDKS[sdk]({ baseURL, fetch }), messages: [], items };
}

/** Takes a turn, to its end or until there is something of its answer. */
async function say({ text, stop }) {
  const controller = new AbortController();
  const answer = { text: '', error: null };
  chat.messages.push({ role: 'user', content: text });
  try {
    for await (const piece of chat.send(chat.messages, controller.signal)) {
      answer.text += piece;
      if (stop && answer.text) controller.abort();
    }
  } catch (error) {
    answer.error = told(error);
  }
  if (answer.text) chat.messages.push({ role: 'assistant', content: answer.text });
  return answer;
}

function told(error) {
  const name = error.name === 'Error' ? error.constructor.name : error.name;
  const known = openai.describe(error) ?? ai.describe(error);
  return { name, code: null, status: null, message: String(error), ...known };
}

/** What the chat keeps in its storage; given something, it finds that there. */
function kept(entries) {
  for (const [name, value] of entries ?? []) chat.items.set(name, value);
  return [...chat.items];
}

/** What the AI SDK makes of its own messages, sent back to the Keyturn at this URL. */
async function ownMessages({ url, store }) {
  const { createFetch } = await import(`${url}/client.js`);
  const baseURL = `${url}/v1`;
  const connection = { baseURL, fetch: createFetch({ baseURL }) };
  return ai.ownMessages(connection, store).catch((error) => told(error).code);
}

globalThis.sdks = { open, say, kept, ownMessages };
