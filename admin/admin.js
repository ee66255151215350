/** The operator's page: looks every few seconds while it is seen, and does what is pressed. */

import { count, moment, usd, usdInTable } from './amounts.js';
import { decide, look, Refused } from './api.js';
import { plotsIn } from './plots.js';
import { element, show } from './tables.js';
import * as words from './words.js';

const STATE_MS = 3_000;
/** @type {Record<number, number>} */
const HISTORY_MS = { 1: 10_000, 6: 30_000, 24: 60_000 };
const VISITORS_MS = 15_000;

/** @param {string} name @returns {any} */
const part = (name) => document.getElementById(name);
const showHistory = plotsIn(part('plots'));

/** @type {any} */
let state = null;
/** @type {any} */
let visitors = null;
/** @type {number | undefined} */
let timer;
const due = { history: 0, visitors: 0 };

// -- what is seen

/**
 * @param {string} text
 * @param {boolean} [isFault]
 */
const say = (text, isFault = false) => {
  part('status').textContent = text;
  part('status').classList.toggle('fault', isFault);
};

/** @param {'login' | 'board'} name */
const turnTo = (name) => {
  part('login').hidden = name !== 'login';
  part('board').hidden = part('log-out').hidden = name !== 'board';
};

const showState = () => {
  const isShut = state.paused || state.left_micro_usd === 0;
  part('admissions').textContent = words.admissions(state);
  part('admissions').classList.toggle('alert', isShut);
  part('pause').hidden = state.paused;
  part('resume').hidden = !state.paused;
  part('streams').textContent = count(state.streams.open);
  part('workers').textContent = words.workers(state);
  part('as-of').textContent = words.asOf(state);
  showMoney();
  showBlocked();
};

const showMoney = () => {
  const { spent_micro_usd: spent, held_micro_usd: held, cap_micro_usd: cap } = state;
  part('spent').textContent = `${usd(spent)} USD`;
  part('money-note').textContent = words.money(state);
  part('forecast').textContent = words.forecast(state);
  part('cap-note').textContent = words.capSource(state);
  part('cap-back').hidden = state.cap_set_in !== 'control';
  part('bar').hidden = !cap;
  if (!cap) return;
  part('bar-spent').style.width = `${Math.min(100, (100 * spent) / cap)}%`;
  part('bar-held').style.width = `${Math.min(100, (100 * held) / cap)}%`;
  part('bar').setAttribute('aria-label', `${words.share(spent + held, cap)} of the cap`);
};

/**
 * @param {string} label
 * @param {string} what
 * @param {() => unknown} press
 */
const button = (label, what, press) => {
  const made = element('button', label);
  made.setAttribute('type', 'button');
  made.setAttribute('aria-label', `${label} ${what}`);
  made.addEventListener('click', press);
  return made;
};

const showBlocked = () => {
  const rows = state.blocked.map((/** @type {any} */ { visitor, until_ms: until }) => [
    { text: visitor, kind: 'name' },
    { text: moment(until) },
    [button('Unblock', visitor, () => unblock(visitor))],
  ]);
  const heads = [{ text: 'Visitor' }, { text: 'Until' }, { text: 'Do' }];
  show(part('blocked'), 'Blocked visitors', heads, rows, 'Nobody is blocked.');
};

/** @param {string} visitor */
const deeds = (visitor) => {
  const isBlocked = state.blocked.some((/** @type {any} */ each) => each.visitor === visitor);
  return [
    isBlocked ? element('span', 'blocked') : button('Block', visitor, () => block(visitor, 24)),
    button('End chats', `of ${visitor}`, () => act('revoke', { visitor }, '')),
  ];
};

const showVisitors = () => {
  if (visitors) {
    showTop();
    showRefused();
  }
};

const showTop = () => {
  const rows = visitors.top.map((/** @type {any} */ each) => {
    const { visitor, spent_micro_usd: spent, held_micro_usd: held, cap_micro_usd: cap } = each;
    return [
      { text: visitor, kind: 'name' },
      { text: usdInTable(spent), kind: 'number' },
      { text: usdInTable(held), kind: 'number' },
      { text: words.share(spent + held, cap), kind: 'number' },
      each.ipv6_48 ? [element('span', 'an IPv6 /48')] : deeds(visitor),
    ];
  });
  show(part('visitors'), 'Visitors who spent most today', [
    { text: `Visitor (${count(visitors.visitors)} today)` },
    { text: 'Spent, USD', kind: 'number' },
    { text: 'Held, USD', kind: 'number' },
    { text: 'Of their cap', kind: 'number' },
    { text: 'Do' },
  ], rows, 'No visitor has spent anything today.');
};

const showRefused = () => {
  const rows = visitors.refused.map((/** @type {any} */ { visitor, code, count: times }) => [
    visitor ? { text: visitor, kind: 'name' } : { text: 'not told' },
    { text: code },
    { text: count(times), kind: 'number' },
    visitor ? deeds(visitor) : [element('span', '–')],
  ]);
  show(part('refused'), 'Refused most', [
    { text: 'Visitor' },
    { text: 'Reason' },
    { text: 'Times', kind: 'number' },
    { text: 'Do' },
  ], rows, 'Nobody was refused.');
};

// -- looking

/** @param {unknown} failure */
const fail = (failure) => {
  if (!(failure instanceof Refused)) throw failure;
  if (failure.status === 401) {
    say(state ? 'Your session has ended: log in again.' : '', false);
    state = null;
    turnTo('login');
    part('token').focus();
    return;
  }
  const since = state ? ' What you see is from before.' : '';
  say(`${failure.message}${since}`, true);
};

const lookAround = async () => {
  const now = Date.now();
  state = await look('state');
  const hours = new FormData(part('range')).get('hours');
  if (now >= due.history) {
    const history = await look(`history?hours=${hours}`);
    part('step').textContent = words.step(history.step_seconds);
    turnTo('board');
    showHistory(history, state);
    due.history = now + HISTORY_MS[history.hours];
  }
  if (now >= due.visitors) {
    visitors = await look('visitors');
    due.visitors = now + VISITORS_MS;
  }
  turnTo('board');
  showState();
  showVisitors();
  if (part('status').classList.contains('fault')) say('');
};

const watch = async () => {
  clearTimeout(timer);
  if (document.hidden) return;
  try {
    await lookAround();
  } catch (failure) {
    fail(failure);
    if (part('login').hidden === false) return;
  }
  clearTimeout(timer);
  timer = window.setTimeout(watch, STATE_MS);
};

const lookAtOnce = () => {
  due.history = due.visitors = 0;
  return watch();
};

// -- doing

/**
 * @param {string} path
 * @param {object} body
 * @param {string} done what is said then
 */
const act = async (path, body, done) => {
  say('…');
  try {
    const said = await decide(path, body);
    state = said;
    due.history = due.visitors = 0; // what comes of it is to be seen at the next look
    showState();
    showVisitors();
    say(path === 'revoke' ? words.ended(said.revoked) : done);
    return true;
  } catch (failure) {
    fail(failure);
    return false;
  }
};

/**
 * @param {string} visitor
 * @param {number} hours
 */
const block = (visitor, hours) => {
  return act('block', { visitor, hours }, `${visitor} is blocked.`);
};

/** @param {string} visitor */
const unblock = (visitor) => act('unblock', { visitor }, `${visitor} may come in again.`);

/**
 * @param {string} name
 * @param {() => Promise<unknown>} send
 */
const onSubmit = (name, send) => {
  part(name).addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    send();
  });
};

part('pause').addEventListener('click', async () => {
  if (await act('pause', {}, 'Paused: nobody gets in by your key.')) part('resume').focus();
});
part('resume').addEventListener('click', async () => {
  if (await act('resume', {}, 'Admissions are open again.')) part('pause').focus();
});
part('cap-back').addEventListener('click', async () => {
  if (await act('cap', { usd: null }, 'The cap is the setting again.')) part('cap').focus();
});
onSubmit('cap-form', async () => {
  const amount = part('cap').value.trim();
  const done = `The cap of a day is ${amount} USD.`;
  if (await act('cap', { usd: amount }, done)) part('cap').value = '';
});
onSubmit('block-form', async () => {
  const visitor = part('block').value.trim();
  const hours = Number(part('block-hours').value);
  if (await block(visitor, hours)) part('block').value = '';
});
onSubmit('revoke-form', async () => {
  const said = part('revoke').value.trim();
  const body = said.includes('.') ? { token: said } : { chain: said };
  if (await act('revoke', body, '')) part('revoke').value = '';
});
onSubmit('login', async () => {
  const token = part('token').value;
  part('token').value = '';
  say('…');
  try {
    await decide('login', { token });
    say('');
    await lookAtOnce();
    part('main').focus();
  } catch (failure) {
    const wrong = failure instanceof Refused && failure.status === 401;
    say(wrong ? 'This is not the token.' : /** @type {Error} */ (failure).message, true);
    part('token').focus();
  }
});
part('log-out').addEventListener('click', async () => {
  clearTimeout(timer);
  try {
    await decide('logout');
    state = null;
    say('You are logged out.');
    turnTo('login');
    part('token').focus();
  } catch (failure) {
    fail(failure);
  }
});
part('range').addEventListener('change', () => {
  due.history = 0;
  watch();
});
document.addEventListener('visibilitychange', () => {
  if (!document.hidden && part('login').hidden) watch();
});

watch();
