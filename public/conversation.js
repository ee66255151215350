/**
 * What was said, as a value: every change makes a new list, so that the old one can come back.
 * Pure: no page, no storage, no network.
 */
import { trimHistory } from './client.js';

/** @typedef {{ id: number, role: 'user' | 'assistant', content: string }} Message */
/** @typedef {{ max_messages?: number, max_message_chars?: number, max_body_bytes?: number }} Limits */

const ROOM = 2048; // bytes of a body that are not its messages
const USUAL_BYTES = 200_000;

// What no server of ours takes: invisible characters without a use in text. Tags spell flags.
const UNSAFE = new RegExp(['(\\u{1f3f4}[\\u{e0030}-\\u{e0039}\\u{e0061}-\\u{e007a}]{3,6}\\u{e007f})',
  '[\\0-\\x08\\v\\f\\x0e-\\x1f\\x7f-\\x9f\\p{Cs}\\p{NChar}\\u{e0000}-\\u{e007f}]'].join('|'), 'gu');

/** What was said before a message. @param {Message[]} messages @param {number} id */
export const before = (messages, id) =>
  messages.slice(0, Math.max(0, messages.findIndex((message) => message.id === id)));

/** What was said before the last answer. @param {Message[]} messages */
export const unanswered = (messages) =>
  messages.slice(0, messages.findLastIndex((message) => message.role === 'user') + 1);

/** What is sent: the newest messages that the server takes, and how many are left out.
 * @param {Message[]} messages @param {Limits} limits */
export function toSend(messages, { max_messages, max_message_chars, max_body_bytes }) {
  const most = { assistant: max_message_chars, user: Infinity }; // who writes it sees the limit
  const whole = messages.map(({ role, content }) =>
    ({ role, content: first(content.replace(UNSAFE, '$1'), most[role]) }));
  const maxBytes = Math.min(USUAL_BYTES, (max_body_bytes ?? Infinity) - ROOM);
  const sent = trimHistory(whole, { maxMessages: max_messages, maxBytes });
  return { messages: sent, leftOut: whole.length - sent.length };
}

/** How long the server takes a text to be. @param {string} text */
export const lengthOf = (text) => [...text].length;

/** @param {string} text @param {number} [most] characters, where the server says so */
const first = (text, most = Infinity) =>
  text.length <= most ? text : [...text].slice(0, most).join('');

/** The conversation that a text keeps; an empty one, if it keeps none.
 * @param {string | null} kept @returns {Message[]} */
export function restored(kept) {
  const found = parse(kept);
  return Array.isArray(found) && found.every(isMessage) ? found : [];
}

/** @param {any} message */
const isMessage = (message) => Number.isSafeInteger(message?.id)
  && ['user', 'assistant'].includes(message.role) && typeof message.content === 'string';

/** @param {string | null} text @returns {unknown} nothing, if it is not JSON */
export function parse(text) {
  try {
    return JSON.parse(text ?? '');
  } catch {
    return undefined;
  }
}
