/** What a reload brings back: the conversation and the draft, in this tab's storage only. */
import { restored } from './conversation.js';

/** @typedef {import('./conversation.js').Message} Message */

const [CHAT, DRAFT] = ['keyturn:chat', 'keyturn:draft'];

/** @param {Message[]} messages @param {string} draft */
export function store(messages, draft) {
  try {
    sessionStorage.setItem(CHAT, JSON.stringify(messages));
    sessionStorage.setItem(DRAFT, draft);
  } catch { /* no storage here, or it is full: a reload forgets */ }
}

/** @returns {{ messages: Message[], draft: string }} */
export function stored() {
  try {
    const draft = sessionStorage.getItem(DRAFT) ?? '';
    return { messages: restored(sessionStorage.getItem(CHAT)), draft };
  } catch {
    return { messages: [], draft: '' };
  }
}
