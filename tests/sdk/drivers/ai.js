/** Vercel's AI SDK: streamText with either provider. */
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, streamText } from 'ai';

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

export function describe(error) {
  if (APICallError.isInstance(error)) {
    const { error: said } = JSON.parse(error.responseBody);
    return { code: said.code, status: error.statusCode, message: error.message };
  }
  return undefined;
}
