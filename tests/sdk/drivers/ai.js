/** Vercel's AI SDK: streamText with either provider. */
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, generateText, StreamProviderError, streamText } from 'ai';

const MODEL = 'gpt-4.1-mini';

const streamer = (model) => async function* (messages, abortSignal) {
  const { stream } = streamText({ model, messages, abortSignal, maxRetries: 0, onError() {} });
  for await (const part of stream) {
    if (part.type === 'error') throw part.error;
    if (part.type === 'text-delta') yield part.text;
  }
};

export const compatible = ({ baseURL, fetch }) =>
  streamer(createOpenAICompatible({ name: 'keyturn', baseURL, fetch })(MODEL));

export const openai = ({ baseURL, fetch }) =>
  streamer(createOpenAI({ apiKey: 'keyturn', baseURL, fetch })(MODEL));

/** Two turns, of which the second sends back the messages that the SDK made of the first answer. */
export async function ownMessages({ baseURL, fetch }, store) {
  const model = createOpenAI({ apiKey: 'keyturn', baseURL, fetch })(MODEL);
  const options = { model, maxRetries: 0, providerOptions: { openai: { store } } };
  const messages = [{ role: 'user', content: 'one' }];
  const first = await generateText({ ...options, messages });
  messages.push(...first.response.messages, { role: 'user', content: 'two' });
  return (await generateText({ ...options, messages })).text;
}

export function describe(error) {
  if (StreamProviderError.isInstance(error)) { // after the first byte
    return { code: error.code, status: error.statusCode ?? null, message: error.message };
  }
  if (!APICallError.isInstance(error)) return undefined;
  const { code } = JSON.parse(error.responseBody).error;
  return { code, status: error.statusCode, message: error.message };
}
