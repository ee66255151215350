/** The operator's page: looks every few seconds while it is seen, and does what is pressed. */

import { count, moment, span, usd, usdInTable } from './amounts.js';
import { decide, look, Refused } from './api.js';
import { plotsIn } from './plots.js';
import { element, show } from './tables.js';

const STATE_MS = 3_000;
const HISTORY_MS = 10_000;
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

/** @param {string} text @param {boolean} [isFault] */
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
  const paused = state.paused;
  const gone = state.left_micro_usd === 0;
  part('admissions').textContent = paused ? 'Paused' : gone ? 'Nothing is left' : 'Open';
  part('admissions').classList.toggle('alert', paused || gone);
  part('pause').hidden = paused;
  part('resume').hidden = !paused;
  const { open, most, workers } = state.streams;
  part('streams').textContent = count(open);
  part('workers').textContent = workers
    ? `of ${count(most)} that ${workers === 1 ? 'one worker takes' : `${workers} workers take`}`
    : 'No worker has told of itself yet.';
  part('as-of').textContent = `As of ${new Date(state.server_time_ms).toISOString().slice(11, 19)} UTC, `
    + `${state.date}; the next day begins in ${span(state.resets_in)}.`;
  showMoney();
  showBlocked();
};

const showMoney = () => {
  const { spent_micro_usd: spent, held_micro_usd: held, cap_micro_usd: cap, forecast } = state;
  part('spent').textContent = `${usd(spent)} USD`;
  const of = cap === null ? 'no cap' : `of ${usd(cap)} USD`;
  part('money-note').textContent = `Spent ${of}; ${usd(held)} USD are held for ${count(state.holds)} `
    + `${state.holds === 1 ? 'turn' : 'turns'} under way.`;
  part('bar').hidden = !cap;
  if (cap) {
    part('bar-spent').style.width = `${Math.min(100, (100 * spent) / cap)}%`;
    part('bar-held').style.width = `${Math.min(100, (100 * held) / cap)}%`;
    part('bar').setAttribute('aria-label', `${Math.floor((100 * (spent + held)) / cap)} % of the cap`);
  }
  part('forecast').textContent = forecast ? inWords(forecast, cap) : 'A forecast needs five minutes of today.';
  const isSet = state.cap_set_in === 'control';
  const setting = state.cap_setting_micro_usd;
  part('cap-back').hidden = !isSet;
  part('cap-note').textContent = isSet
    ? `Set here. It stands until you go back to the setting (${setting === null ? 'off' : `${usd(setting)} USD`}).`
    : 'From DAILY_BUDGET_USD. What you set here stands until you go back.';
};

/** @param {{spent_micro_usd: number, micro_usd_an_hour: number}} forecast @param {number | null} cap */
const inWords = (forecast, cap) => {
  const { micro_usd_an_hour: pace, spent_micro_usd: end } = forecast;
  const left = cap === null ? null : cap - state.spent_micro_usd;
  const at = `At the pace of the last hour, ${usd(pace)} USD an hour, `;
  if (left === null || end <= (cap ?? 0)) return `${at}the day ends at ${usd(end)} USD.`;
  if (left <= 0) return `${at}the cap is passed.`;
  const seconds = left / pace * 3600;
  return `${at}the cap is reached in ${span(seconds)}, ${span(state.resets_in - seconds)} before the day ends.`;
};

/** @param {string} label @param {string} what @param {() => unknown} press */
const button = (label, what, press) => {
  const made = element('button', label);
  made.setAttribute('type', 'button');
  made.setAttribute('aria-label', `${label} ${what}`);
  made.dataset.press = label;
  made.addEventListener('click', press);
  return made;
};

const showBlocked = () => {
  const rows = state.blocked.map((/** @type {any} */ { visitor, until_ms: until }) => [
    { text: visitor, kind: 'name' },
    { text: moment(until) },
    [button('Unblock', visitor, () => act('unblock', { visitor }, `${visitor} may come in again.`))],
  ]);
  show(part('blocked'), 'Blocked visitors', [{ text: 'Visitor' }, { text: 'Until' }, { text: 'Do' }],
    rows, 'Nobody is blocked.');
};

/** @param {string} visitor */
const deeds = (visitor) => {
  const isBlocked = state?.blocked.some((/** @type {any} */ each) => each.visitor === visitor);
  return [
    isBlocked
      ? element('span', 'blocked')
      : button('Block', visitor, () => act('block', { visitor, hours: 24 }, `${visitor} is blocked for a day.`)),
    button('End chats', `of ${visitor}`, () => act('revoke', { visitor }, '')),
  ];
};

const showVisitors = () => {
  if (!visitors) return;
  const top = visitors.top.map((/** @type {any} */ each) => [
    { text: each.visitor, kind: 'name' },
    { text: usdInTable(each.spent_micro_usd), kind: 'number' },
    { text: usdInTable(each.held_micro_usd), kind: 'number' },
    { text: each.cap_micro_usd ? `${Math.floor((100 * (each.spent_micro_usd + each.held_micro_usd)) / each.cap_micro_usd)} %` : '–', kind: 'number' },
    each.ipv6_48 ? [element('span', 'an IPv6 /48')] : deeds(each.visitor),
  ]);
  show(part('visitors'), 'Visitors who spent most today', [
    { text: `Visitor (${count(visitors.visitors)} today)` }, { text: 'Spent, USD', kind: 'number' },
    { text: 'Held, USD', kind: 'number' }, { text: 'Of their cap', kind: 'number' }, { text: 'Do' },
  ], top, 'No visitor has spent anything today.');
  const refused = visitors.refused.map((/** @type {any} */ each) => [
    { text: each.visitor ?? 'not told', kind: each.visitor ? 'name' : undefined },
    { text: each.code },
    { text: count(each.count), kind: 'number' },
    each.visitor ? deeds(each.visitor) : [element('span', '–')],
  ]);
  show(part('refused'), 'Refused most', [
    { text: 'Visitor' }, { text: 'Reason' }, { text: 'Times', kind: 'number' }, { text: 'Do' },
  ], refused, 'Nobody was refused.');
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
  const hours = document.querySelector('[name=hours]:checked')?.getAttribute('value');
  if (now >= due.history) {
    const history = await look(`history?hours=${hours}`);
    part('step').textContent = `Each point is ${history.step_seconds === 60 ? 'a minute' : `${history.step_seconds / 60} minutes`}; the last is not over yet.`;
    turnTo('board');
    showHistory(history, state);
    due.history = now + HISTORY_MS;
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

/** @param {string} path @param {object} body @param {string} done */
const act = async (path, body, done) => {
  say('…');
  try {
    const said = await decide(path, body);
    state = said;
    showState();
    showVisitors();
    say(path === 'revoke' ? ended(said.revoked) : done);
    return true;
  } catch (failure) {
    fail(failure);
    return false;
  }
};

/** @param {number} chats */
const ended = (chats) => (chats === 1 ? 'One chat is ended.' : `${count(chats)} chats are ended.`);

/** @param {string} name @param {() => Promise<unknown>} send */
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
  if (await act('cap', { usd: amount }, `The cap of a day is ${amount} USD.`)) part('cap').value = '';
});
onSubmit('block-form', async () => {
  const visitor = part('block').value.trim();
  const hours = Number(part('block-hours').value);
  if (await act('block', { visitor, hours }, `${visitor} is blocked.`)) part('block').value = '';
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
