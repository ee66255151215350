/** What the state says, in sentences. */

import { count, span, usd } from './amounts.js';

/**
 * @typedef {object} State what GET /admin/api/state says
 * @property {number} server_time_ms
 * @property {string} date
 * @property {number} resets_in
 * @property {number} spent_micro_usd
 * @property {number} held_micro_usd
 * @property {number | null} left_micro_usd
 * @property {number | null} cap_micro_usd
 * @property {number | null} cap_setting_micro_usd
 * @property {'control' | 'DAILY_BUDGET_USD'} cap_set_in
 * @property {boolean} paused
 * @property {number} holds
 * @property {{open: number, most: number, workers: number}} streams
 * @property {{spent_micro_usd: number, micro_usd_an_hour: number} | null} forecast
 * @property {{visitor: string, until_ms: number}[]} blocked
 */

/** @param {State} state */
export const asOf = ({ server_time_ms: ms, date, resets_in: seconds }) => {
  const time = new Date(ms).toISOString().slice(11, 19);
  return `As of ${time} UTC, ${date}; the next day begins in ${span(seconds)}.`;
};

/** @param {State} state */
export const admissions = ({ paused, left_micro_usd: left }) => {
  if (paused) return 'Paused';
  return left === 0 ? 'Nothing is left' : 'Open';
};

/** @param {State} state */
export const workers = ({ streams: { most, workers: told } }) => {
  if (!told) return 'No worker has told of itself yet.';
  return `of ${count(most)} that ${told === 1 ? 'one worker takes' : `${told} workers take`}`;
};

/** @param {State} state */
export const money = ({ cap_micro_usd: cap, held_micro_usd: held, holds }) => {
  const of = cap === null ? 'without a cap' : `of ${usd(cap)} USD`;
  const turns = holds === 1 ? 'turn' : 'turns';
  return `Spent ${of}; ${usd(held)} USD are held for ${count(holds)} ${turns} under way.`;
};

/** @param {State} state */
export const forecast = ({ forecast: told, cap_micro_usd: cap, spent_micro_usd: spent,
  resets_in: seconds }) => {
  if (!told) return 'A forecast needs five minutes of today.';
  const pace = told.micro_usd_an_hour;
  const at = `At the pace of the last hour, ${usd(pace)} USD an hour,`;
  if (cap === null || told.spent_micro_usd <= cap) {
    return `${at} the day ends at ${usd(told.spent_micro_usd)} USD.`;
  }
  if (spent >= cap) return `${at} the cap is passed.`;
  const left = ((cap - spent) / pace) * 3600;
  return `${at} the cap is reached in ${span(left)}, ${span(seconds - left)} before the day ends.`;
};

/** @param {State} state */
export const capSource = ({ cap_set_in: where, cap_setting_micro_usd: setting }) => {
  if (where !== 'control') {
    return 'From DAILY_BUDGET_USD. What you set here stands until you go back.';
  }
  const was = setting === null ? 'off' : `${usd(setting)} USD`;
  return `Set here. It stands until you go back to the setting (${was}).`;
};

/** @param {number} seconds of each point of a curve */
export const step = (seconds) => {
  const length = seconds === 60 ? 'a minute' : `${seconds / 60} minutes`;
  return `Each point is ${length}; the last is not over yet.`;
};

/**
 * @param {number} amount
 * @param {number | null} cap
 */
export const share = (amount, cap) => (cap ? `${Math.floor((100 * amount) / cap)} %` : '–');

/** @param {number} chats */
export const ended = (chats) => {
  return chats === 1 ? 'One chat is ended.' : `${count(chats)} chats are ended.`;
};
