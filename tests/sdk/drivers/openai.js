/** OpenAI's SDK: its plain streams, and its helper that puts them together. */
import OpenAI from 'openai';

const MODEL = 'gpt-4.1-mini';

const clientOf = ({ baseURL, fetch }) => new OpenAI({
  baseURL, fetch, apiKey: 'keyturn', dangerouslyAllowBrowser: true, maxRetries: 0,
});

export const create = (connection) => async function* (messages, signal) {
  const request = { model: MODEL, messages, stream: true };
  const stream = await clientOf(connection).chat.completions.create(request, { signal });
  for await (const { choices: [choice] } of stream) yield choice.delta.content ?? '';
};

export const helper = (connection) => async function* (messages, signal) {
  const request = { model: MODEL, messages };
  const stream = clientOf(connection).chat.completions.stream(request, { signal });
  for await (const { choices: [choice] } of stream) yield choice.delta.content ?? '';
  await stream.finalContent();
};

export const responses = (connection) => async function* (input, signal) {
  const request = { model: MODEL, input, stream: true };
  const stream = await clientOf(connection).responses.create(request, { signal });
  for await (const event of stream) {
    if (event.type === 'response.output_text.delta') yield event.delta;
  }
};

/** What is the same for all who throw its errors. */
export function describe(error) {
  if (!(error instanceof OpenAI.APIError)) return undefined;
  return { code: error.code, status: error.status, message: error.message };
}
