/**
 * The conversation as it is shown: an element for each message, kept as long as it stands.
 *
 * The reader stays where they read; who is at the end stays at the end.
 */
import { copyButton } from './copy.js';
import { Markdown } from './markdown.js';

/** @typedef {import('./conversation.js').Message} Message */
/** @typedef {{ edit: (id: number) => void, retry: () => void }} Actions */

const NEAR = 48; // pixels from the end that count as the end
const MEMORY = "The model's memory begins here: what is above is not sent any more.";

export class Transcript {
  #box;
  #toEnd;
  #actions;
  /** @type {Map<number, { element: HTMLElement, answer?: Markdown }>} */
  #shown = new Map();
  #memory = document.createElement('p');

  /** @param {HTMLElement} box @param {HTMLElement} toEnd @param {Actions} actions */
  constructor(box, toEnd, actions) {
    this.#box = box;
    this.#toEnd = toEnd;
    this.#actions = actions;
    this.#memory.className = 'memory';
    this.#memory.textContent = MEMORY;
    box.addEventListener('scroll', () => this.#offerEnd());
    new ResizeObserver(() => this.#shown.size && this.#toEnd.hidden && this.showEnd()).observe(box);
    toEnd.addEventListener('click', () => this.showEnd());
  }

  /** Shows these messages; of the first `leftOut` it says that the model does not see them.
   * @param {Message[]} messages @param {number} leftOut */
  show(messages, leftOut) {
    const ids = new Set(messages.map((message) => message.id));
    for (const [id, { element }] of this.#shown) {
      if (ids.has(id)) continue;
      element.remove();
      this.#shown.delete(id);
    }
    messages.filter(({ id }) => !this.#shown.has(id)).forEach((message) => this.#add(message));
    this.#memory.remove();
    if (leftOut) this.#shown.get(messages[leftOut]?.id)?.element.before(this.#memory);
    this.#offerEnd();
  }

  /** Adds to an answer. @param {number} id @param {string} words */
  write(id, words) {
    this.#shown.get(id)?.answer?.write(words);
  }

  /** What an answer says so far. @param {number} id */
  textOf(id) {
    return this.#shown.get(id)?.answer?.text ?? '';
  }

  /** The answer is whole; returns what can be read of it. @param {number} id */
  end(id) {
    const { element, answer } = this.#shown.get(id) ?? {};
    answer?.end();
    element?.classList.remove('coming');
    return /** @type {HTMLElement} */ (element?.querySelector('.text'))?.innerText ?? '';
  }

  /** Marks what an edit would replace: all from this message on. @param {number} [from] an id */
  mark(from = Infinity) {
    for (const [id, { element }] of this.#shown) element.classList.toggle('goes', id >= from);
  }

  showEnd() {
    this.#box.scrollTop = this.#box.scrollHeight;
  }

  focus() {
    this.#box.focus({ preventScroll: true });
  }

  /** @param {Message} message */
  #add({ id, role, content }) {
    const mine = role === 'user';
    const element = document.createElement('article');
    element.className = mine ? 'message mine' : 'message theirs';
    const who = element.appendChild(document.createElement('h2'));
    who.className = 'unseen';
    who.textContent = mine ? 'You' : 'Assistant';
    const text = element.appendChild(document.createElement('div'));
    text.className = 'text';
    const answer = mine ? undefined : new Markdown(text, (render) => this.#keepingEnd(render));
    this.#shown.set(id, { element, answer });
    const actions = element.appendChild(document.createElement('div'));
    actions.className = 'actions';
    actions.append(copyButton(() => (answer ? answer.text : content)),
      mine ? button('Edit', () => this.#actions.edit(id)) : button('Retry', this.#actions.retry));
    this.#box.append(element);
    if (!answer) text.textContent = content;
    else if (content) (answer.write(content), answer.end());
    else element.classList.add('coming');
  }

  /** @param {() => void} change */
  #keepingEnd(change) {
    const atEnd = this.#isAtEnd();
    change();
    if (atEnd) this.showEnd();
    this.#offerEnd();
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  #offerEnd() {
    this.#toEnd.hidden = this.#isAtEnd();
  }
}

/** @param {string} label @param {() => void} act */
function button(label, act) {
  const made = document.createElement('button');
  made.type = 'button';
  made.className = `quiet ${label.toLowerCase()}`;
  made.textContent = label;
  made.addEventListener('click', act);
  return made;
}
