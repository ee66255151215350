/**
 * The wire: a panel that shows what each turn showed the server and what came back, and the lines
 * that another page needs. Beside the chat where there is room, a sheet over it where there is none.
 *
 * The law: of a token only its end is ever shown.
 */
import { copyButton } from './copy.js';
import { newRecord, spentBy, withExchange } from './record.js';
import { replay } from './replay.js';
import { inWords } from './wording.js';

/** @typedef {import('./record.js').TurnRecord} TurnRecord */

const MOST_CARDS = 50;
const MARKS = { passed: '✓', refused: '✕', 'not reached': '·', 'not asked': '–' };
const SAID = { passed: 'passed', refused: 'refused here', 'not reached': 'not reached',
  'not asked': 'not asked: your own key pays' };

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const [panel, toggle, turns] = ['wire', 'wire-toggle', 'turns'].map(part);
let count = 0;
const roomy = matchMedia('(min-width: 68rem)');

/** Makes the panel open and close, and fills in what it says of this server. */
export function listen() {
  toggle.addEventListener('click', () => (panel.open ? panel.close() : open()));
  part('wire-close').addEventListener('click', () => panel.close());
  panel.addEventListener('close', () => toggle.setAttribute('aria-expanded', 'false'));
  panel.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    panel.close();
  });
  roomy.addEventListener('change', () => panel.open && (panel.close(), open()));
  for (const [id, text] of [['lines', lines()], ['sdk-lines', sdkLines()]]) {
    const pre = part(id);
    pre.firstChild.textContent = text;
    pre.previousElementSibling.append(copyButton(() => text));
  }
}

function open() {
  if (roomy.matches) panel.show();
  else panel.showModal();
  toggle.setAttribute('aria-expanded', 'true');
}

const lines = () => `<script type="module">
  import { createFetch, readEvents } from '${location.origin}/client.js';

  const fetch = createFetch({ baseURL: '${location.origin}' });
  const response = await fetch('/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ stream: true, messages: [{ role: 'user', content: 'Hello' }] }),
  });
  for await (const data of readEvents(response)) {
    if (data === '[DONE]') continue;
    document.body.append(JSON.parse(data).choices[0]?.delta.content ?? '');
  }
</script>`;

const sdkLines = () => `const openai = new OpenAI({
  baseURL: '${location.origin}/v1',
  apiKey: 'keyturn', // a placeholder: your page holds no key
  fetch: createFetch({ baseURL: '${location.origin}' }),
  dangerouslyAllowBrowser: true,
});`;

/** A turn on the wire, drawn as it goes. */
export class WireTurn {
  /** @type {TurnRecord} */
  #record;
  #card = document.createElement('details');
  #body = document.createElement('div');
  #again = document.createElement('div');

  /** @param {string} label what the server's log calls it @param {boolean} ownKey */
  constructor(label, ownKey) {
    this.#record = newRecord(label, ownKey);
    for (const earlier of turns.children) earlier.open = false;
    this.#card.className = 'turn';
    this.#card.open = true;
    this.#card.append(document.createElement('summary'), this.#body, this.#again);
    this.#card.dataset.number = String(count += 1);
    turns.prepend(this.#card);
    turns.children[MOST_CARDS]?.remove();
    part('no-turns').hidden = true;
    this.#draw();
  }

  /** @param {import('./client.d.ts').Exchange} exchange */
  attempt(exchange) {
    this.#record = withExchange(this.#record, exchange);
    const spent = this.#record.ownKey ? undefined : spentBy(exchange);
    if (spent) this.#offerReplay(spent);
    this.#draw();
  }

  firstWord() {
    this.#time('firstWord');
  }

  end() {
    if (!this.#record.attempts.length) this.#record = { ...this.#record, outcome: 'stopped' };
    this.#time('whole');
  }

  /** @param {'firstWord' | 'whole'} what */
  #time(what) {
    this.#record = { ...this.#record, [what]: Date.now() - this.#record.begun };
    this.#draw();
  }

  #draw() {
    const record = this.#record;
    const state = record.admitted ? 'admitted' : record.attempts.length ? 'refused' : 'under-way';
    this.#card.dataset.state = state;
    this.#card.firstElementChild?.replaceChildren(
      text('span', `Turn ${this.#card.dataset.number}`, 'title'),
      text('span', record.admitted ? `admitted, ${record.outcome}` : record.outcome, 'badge'),
    );
    const { shown, came, ownKey } = record;
    this.#body.replaceChildren(
      ...(shown && !ownKey ? [turning(shown, came)] : []),
      ...(record.checks.length ? [checksOf(record)] : []),
      factsOf(record),
      ...(record.attempts.length > 1 ? [attemptsOf(record)] : []),
    );
  }

  /** @param {import('./record.js').Spent} spent */
  #offerReplay(spent) {
    const button = text('button', 'Replay this token', 'replay');
    button.setAttribute('type', 'button');
    const result = text('div', '', 'result');
    result.setAttribute('role', 'status');
    button.addEventListener('click', async () => {
      result.replaceChildren(text('p', 'Sent again…'));
      result.replaceChildren(...(await replay(spent)).map((sentence) => text('p', sentence)));
    });
    this.#again.replaceChildren(button, result);
  }
}

/** @param {string} name @param {string} words @param {string} [className] */
function text(name, words, className = '') {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = words;
  return made;
}

/** The token that was shown, and the one that came for it. @param {string} shown @param {string} came */
function turning(shown, came) {
  const line = text('p', '', 'turning');
  line.append('shown ', text('code', shown), text('span', ' → ', 'arrow'), 'came ', text('code', came));
  return line;
}

/** @param {TurnRecord} record */
function checksOf({ checks, shown }) {
  const list = text('ol', '', 'checks');
  list.append(...checks.map(({ number, name, about, first, verdict }) => {
    const item = text('li', '');
    item.dataset.verdict = verdict;
    const mark = text('span', MARKS[verdict], 'mark');
    mark.setAttribute('aria-hidden', 'true');
    item.append(mark, text('span', number ? `${number}. ${name}` : name, 'name'), text('span', SAID[verdict], 'verdict'),
      text('span', shown === 'none' && first ? first : about, 'about'));
    return item;
  }));
  return list;
}

/** @param {TurnRecord} record */
function factsOf({ label, firstByte, firstWord, whole, limits, budget, maxOutput }) {
  const list = text('dl', '');
  const times = [['first byte', firstByte], ['first words', firstWord], ['all', whole]];
  const known = times.filter(([, ms]) => ms !== undefined);
  const facts = [
    ['Time', known.map(([what, ms]) => `${what} ${inSeconds(Number(ms))}`).join(' · ')],
    ...limits.map(({ name, left, of, regained }) => [name === 'start' ? 'New chains' : 'Rate',
      `${left} of ${of} left, one more in ${inWords(regained)}`]),
    ['Your budget', budget ? `${inDollars(budget.remaining)} of ${inDollars(budget.limit)} left, `
      + `anew in ${inWords(budget.reset)}` : ''],
    ['Shortened', maxOutput ? `to ${maxOutput} tokens, which the budget still pays for` : ''],
    ['In the log', label],
  ];
  for (const [name, value] of facts) {
    if (value) list.append(text('dt', name), text('dd', value));
  }
  return list;
}

/** @param {TurnRecord} record */
function attemptsOf({ attempts }) {
  const list = text('ol', '', 'attempts');
  list.append(...attempts.map(({ outcome, ms, remedy }) =>
    text('li', `${outcome}, after ${inSeconds(ms)}${remedy ? `: ${remedy}` : ''}`)));
  return list;
}

/** @param {number} ms */
const inSeconds = (ms) => (ms < 1000 ? `${Math.round(ms)}\u00a0ms` : `${(ms / 1000).toFixed(1)}\u00a0s`);

/** @param {number} micro millionths of a dollar */
const inDollars = (micro) => `$${(micro / 1e6).toFixed(4).replace(/0{1,2}$/, '')}`;
