/** The box in which messages are written. What stands in it is only taken away by being sent. */
import { lengthOf } from './conversation.js';

const SOON = 500; // characters before the limit from which on they are counted down

export class Composer {
  #box;
  #count;
  #most = Infinity;
  #aside = ''; // the draft that waits while an earlier message is changed

  /** @param {HTMLTextAreaElement} box @param {HTMLElement} count */
  constructor(box, count) {
    this.#box = box;
    this.#count = count;
    box.addEventListener('input', () => this.#look());
  }

  /** @param {number} [most] characters that a message may have */
  limit(most = Infinity) {
    this.#most = most;
    this.#look();
  }

  get text() {
    return this.#box.value;
  }

  /** The draft, to be kept over a reload. */
  get draft() {
    return joined('\n', this.#aside, this.#box.value);
  }

  /** By how many characters the message is too long. */
  get excess() {
    const length = this.#box.value.length; // never less than its characters
    return length <= this.#most ? 0 : Math.max(0, lengthOf(this.#box.value) - this.#most);
  }

  /** @param {string} text */
  set(text) {
    this.#box.value = text;
    this.#look();
  }

  /** Puts a text back that was not answered, before what was written since. @param {string} text */
  giveBack(text) {
    this.set(joined('\n', text, this.#box.value));
  }

  /** Lays the draft aside for another text. @param {string} text */
  swap(text) {
    this.#aside = joined('\n', this.#aside, this.#box.value);
    this.set(text);
    this.focus();
    this.#box.setSelectionRange(text.length, text.length);
  }

  /** Takes the draft out again, in the place of the other text. */
  swapBack() {
    this.set(this.#aside);
    this.#aside = '';
  }

  focus() {
    this.#box.focus();
  }

  #look() {
    const { value } = this.#box;
    const near = value.length > this.#most - SOON; // never less than its characters
    const left = near ? this.#most - lengthOf(value) : Infinity;
    this.#count.hidden = left > SOON;
    if (near) this.#count.textContent = left < 0 ? `${-left} too many` : `${left} left`;
    this.#box.setAttribute('aria-invalid', String(left < 0));
    if (CSS.supports('field-sizing', 'content')) return;
    this.#box.style.height = 'auto';
    this.#box.style.height = `${this.#box.scrollHeight + 2}px`;
  }
}

/** @param {string} between @param {string[]} texts */
export const joined = (between, ...texts) => texts.filter(Boolean).join(between);

/** Whether a key event sends the message. @param {KeyboardEvent} event */
export function sends(event) {
  const composing = event.isComposing || event.keyCode === 229; // Safari says 229 only
  return event.key === 'Enter' && !event.shiftKey && !composing;
}
