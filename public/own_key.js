/**
 * A visitor's own OpenAI key: given when they like, and asked for when the site's budget is gone.
 *
 * The law: the key is in one variable and, by client.js, in the header of each turn it pays for,
 * and nowhere else: no storage, no address, no markup, no log. Reloading the page forgets it.
 */
import { say } from './status.js';

const KEY = /^sk-[\x21-\x7e]{1,509}$/; // as the server reads it

/** @type {Map<string | undefined, string>} what to say after a refusal where a key would help */
const ASKS = new Map([
  ['budget_exhausted', 'You can go on with your own OpenAI key.'],
  ['budget_visitor', 'You can go on with your own OpenAI key.'],
  ['byok_key_malformed', 'Give it again, or another one.'],
  ['byok_key_rejected', 'Give it again, or another one.'],
]);

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const [form, field, notNow, toggle] = ['own-key', 'key', 'not-now', 'own-key-toggle'].map(part);
const [paying, siteAgain] = ['own-key-pays', 'site-again'].map(part);

let key = '';
let taken = false;
/** @type {() => void} told when a key comes or goes */
let changed = () => {};

/** The key, if there is one. */
export const current = () => key || undefined;

/** @param {boolean} taking whether this server takes own keys */
export function setTaken(taking) {
  taken = taking;
  toggle.hidden = !taking;
}

/** What to say of own keys to a visitor who was refused. @param {string} [code] the reason */
export const askAfter = (code) => (taken && ASKS.get(code)) || '';

/** @param {string} given the key from now on; none, if empty */
function use(given) {
  key = given;
  paying.hidden = !given;
  toggle.hidden = !taken || Boolean(given);
  changed();
}

/** Asks for a key where one would help; a key that was refused is forgotten.
 * @param {string} [code] why a turn was refused, if it was */
export function offerAfter(code) {
  if (code?.startsWith('byok_')) use('');
  if (askAfter(code)) unfold();
}

function unfold() {
  form.hidden = false;
  toggle.setAttribute('aria-expanded', 'true');
  field.focus();
  form.scrollIntoView({ block: 'nearest' });
}

/** Folds the form away, with whatever was typed there. */
export function fold() {
  field.value = '';
  field.removeAttribute('aria-invalid');
  form.hidden = true;
  toggle.setAttribute('aria-expanded', 'false');
}

/**
 * @param {object} page
 * @param {() => void} page.goBack to where messages are written
 * @param {() => void} page.goOn sends what was not answered
 * @param {() => void} page.changed a key came or went
 */
export function listen({ goBack, goOn, changed: tell }) {
  changed = tell;
  form.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    const given = field.value.trim();
    if (!KEY.test(given)) {
      say('This is no OpenAI key: one begins with sk- and holds no blanks.', true);
      field.setAttribute('aria-invalid', 'true');
      return field.focus();
    }
    fold();
    use(given);
    say('Your own key pays from now on.');
    goBack();
    goOn();
  });

  const decline = () => {
    fold();
    goBack();
  };
  notNow.addEventListener('click', decline);
  form.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== 'Escape' || event.isComposing) return;
    event.stopPropagation();
    decline();
  });
  toggle.addEventListener('click', () => (form.hidden ? unfold() : decline()));

  siteAgain.addEventListener('click', () => {
    use('');
    say("The site's budget is used again; your key is forgotten.");
    goBack();
  });
}
