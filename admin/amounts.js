/** How amounts and times are written: the same for every reader, wherever the browser is. */

const MICRO = 1_000_000;
const COUNTS = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** @param {number} number */
export const count = (number) => COUNTS.format(number);

/**
 * USD with two decimals; with up to six where two would not tell it from nothing.
 *
 * @param {number} micro
 */
export const usd = (micro) => new Intl.NumberFormat('en', {
  minimumFractionDigits: 2,
  maximumFractionDigits: micro > 0 && micro < MICRO ? 4 : 2,
}).format(micro / MICRO);

/** USD as it stands among others in a table. @param {number} micro */
export const usdInTable = (micro) => (micro / MICRO).toFixed(4);

/** @param {number | null} ms */
export const duration = (ms) => {
  if (ms === null) return '–';
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
};

/** @param {number} seconds Unix seconds, as 16:05 */
export const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(11, 16);

/** @param {number} ms Unix milliseconds, as 2026-11-27 16:05 UTC */
export const moment = (ms) => `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`;

/** @param {number} seconds */
export const span = (seconds) => {
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  return hours ? `${hours} h ${minutes} min` : `${minutes} min`;
};
