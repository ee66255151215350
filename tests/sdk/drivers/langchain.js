/** LangChain.js: ChatOpenAI, whose errors are those of OpenAI's SDK. */
import { ChatOpenAI } from '@langchain/openai';

export const chat = ({ baseURL, fetch }) => async function* (messages, signal) {
  const model = new ChatOpenAI({
    model: 'gpt-4.1-mini',
    apiKey: 'keyturn',
    maxRetries: 0,
    configuration: { baseURL, fetch, dangerouslyAllowBrowser: true },
  });
  for await (const chunk of await model.stream(messages, { signal })) yield chunk.text;
};
