// LangChain.js in a page without a login. Keyturn needs the three lines that are marked.
import { AIMessage, HumanMessage } from '@langchain/core/messages';
import { ChatOpenAI } from '@langchain/openai';
import { createFetch } from 'http://localhost:8000/client.js'; // Keyturn

const model = new ChatOpenAI({
  model: 'gpt-4.1-mini',
  apiKey: 'keyturn', // any word: it is not sent
  maxRetries: 0, // client.js waits and sends again where that helps; the default here is six
  configuration: {
    baseURL: 'http://localhost:8000/v1', // Keyturn
    fetch: createFetch({ baseURL: 'http://localhost:8000' }), // Keyturn
    dangerouslyAllowBrowser: true, // there is no key here that could be stolen
  },
});
const messages = [];

/** Takes a turn; `show` gets the answer as it comes. */
async function ask(text, show) {
  const question = new HumanMessage(text);
  let answer = '';
  for await (const chunk of await model.stream([...messages, question])) {
    answer += chunk.text;
    show(chunk.text);
  }
  messages.push(question, new AIMessage(answer));
}

const show = (piece) => document.body.append(piece);
await ask('Good morning!', show);
await ask('And again.', show);
