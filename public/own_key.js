/**
 * A visitor's own OpenAI key: asked for when the site's budget is used up.
 *
 * The law: the key is in one variable and in the header of each turn it pays for, and nowhere
 * else: no storage, no address, no markup, no log. Reloading the page forgets it.
 */

const KEY = /^sk-[\x21-\x7e]{1,509}$/; // as the server reads it: anything else would be a token

/** @type {Map<string | undefined, string>} what to say after a refusal where a key would help */
const ASKS = new Map([
  ['budget_exhausted', 'You can go on with your own OpenAI key.'],
  ['budget_visitor', 'You can go on with your own OpenAI key.'],
  ['byok_key_malformed', 'Give it again, or another one.'],
  ['byok_key_rejected', 'Give it again, or another one.'],
]);

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const [offer, field, notNow] = ['own-key', 'key', 'not-now'].map(part);
const [paying, siteAgain] = ['own-key-pays', 'site-again'].map(part);

let key = '';
let taken = false;

/** @param {boolean} taking whether this server takes own keys */
export function setTaken(taking) {
  taken = taking;
}

/** What to say of own keys to a visitor who was refused. @param {string} [code] the reason */
export const askAfter = (code) => (taken && ASKS.get(code)) || '';

export const inUse = () => Boolean(key);

/** A fetch that shows the visitor's key, and nothing of the site's chain.
 * @param {string} url @param {RequestInit} init @returns {Promise<Response>} */
export function ownFetch(url, init) {
  const headers = new Headers(init.headers);
  headers.set('Authorization', `Bearer ${key}`);
  return fetch(url, { ...init, headers });
}

/** @param {string} given the key from now on; none, if empty */
function use(given) {
  key = given;
  paying.hidden = !given;
}

/** Asks for a key where one would help; a key that was refused is forgotten.
 * @param {string} [code] why a turn was refused, if it was */
export function offerAfter(code) {
  if (code?.startsWith('byok_')) use('');
  if (!askAfter(code)) return;
  offer.hidden = false;
  field.focus();
  offer.scrollIntoView({ block: 'nearest' });
}

/** Takes the offer back, with whatever was typed there. */
export function withdraw() {
  field.value = '';
  field.removeAttribute('aria-invalid');
  offer.hidden = true;
}

/**
 * @param {(words: string, fault?: boolean) => void} say
 * @param {() => void} goBack to where messages are written
 * @param {() => void} goOn sends what was not answered
 */
export function listen(say, goBack, goOn) {
  offer.addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    const given = field.value.trim();
    if (!KEY.test(given)) {
      say('This is no OpenAI key: one begins with sk- and holds no blanks.', true);
      field.setAttribute('aria-invalid', 'true');
      return field.focus();
    }
    withdraw();
    use(given);
    say('Your own key pays from now on.');
    goBack();
    goOn();
  });

  const notNowPlease = () => {
    withdraw();
    goBack();
  };
  notNow.addEventListener('click', notNowPlease);
  offer.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
    if (event.key === 'Escape' && !event.isComposing) notNowPlease();
  });

  siteAgain.addEventListener('click', () => {
    use('');
    say("The site's budget is used again; your key is forgotten.");
    goBack();
  });
}
