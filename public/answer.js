/** An answer as it streams in. */
import { readEvents } from './client.js';
import { parse } from './conversation.js';
import { brokenOff } from './wording.js';

/** Hands over the words of a chat completion as they come; returns why it ended.
 * @param {Response} response @param {(words: string) => void} write @returns {Promise<string>} */
export async function relay(response, write) {
  let finish;
  // Reads on after [DONE]: to leave there would be to hang up before the server's last byte.
  for await (const data of readEvents(response)) {
    const frame = /** @type {any} */ (parse(data)); // [DONE] is no JSON
    if (frame?.error) throw brokenOff(frame.error);
    const choice = frame?.choices?.[0];
    write(choice?.delta?.content ?? choice?.delta?.refusal ?? '');
    finish = choice?.finish_reason ?? finish;
  }
  if (!finish) throw brokenOff();
  return finish;
}
