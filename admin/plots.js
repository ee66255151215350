/** Plots of the history: drawn by uPlot for the eye, and each a table for everybody. */

import { clock, count, duration, usd } from './amounts.js';
import { element, show } from './tables.js';
import uPlot from './vendor/uplot.js';

/**
 * @typedef {(number | null)[]} Values
 * @typedef {{name: string, values: Values}} Curve
 * @typedef {{at: number[], curves: Curve[], most?: number}} Drawn
 * @typedef {{title: string, write: (value: number) => string, empty: string,
 *   curves: (history: any, state: any) => Curve[]}} Kind
 */

const HEIGHT = 160;
const MOST_REASONS = 5;
const WHOLE = [...Array(10).keys()].flatMap((power) => [1, 2, 5].map((step) => step * 10 ** power));
const DASHES = [undefined, [8, 5], [2, 4]];
const COLOURS = 6;
const DASHED = ['', 'dash-1', 'dash-2'];

/** @param {Values} values */
const total = (values) => values.reduce((/** @type {number} */ sum, each) => sum + (each ?? 0), 0);

/** @param {Record<string, Values>} refused @returns {Curve[]} */
const byReason = (refused) => {
  const sorted = Object.entries(refused)
    .map(([name, values]) => ({ name, values }))
    .sort((one, other) => total(other.values) - total(one.values));
  const rest = sorted.slice(MOST_REASONS);
  if (!rest.length) return sorted;
  const values = rest[0].values.map((_, at) => total(rest.map((each) => each.values[at])));
  return [...sorted.slice(0, MOST_REASONS), { name: 'others', values }];
};

/**
 * The cap is drawn as soon as it is near: else the curves would lie on the ground.
 *
 * @param {Values} spent
 * @param {Values} held
 * @param {number | null | undefined} cap
 * @returns {Curve[]}
 */
const ofMoney = (spent, held, cap) => {
  const both = spent.map((value, at) => (value === null ? null : value + (held[at] ?? 0)));
  const curves = [{ name: 'spent', values: spent }, { name: 'spent and held', values: both }];
  const most = Math.max(...both.map((value) => value ?? 0));
  if (cap && most > cap / 5) curves.push({ name: 'cap', values: both.map(() => cap) });
  return curves;
};

/** @type {Kind[]} */
const KINDS = [
  {
    title: 'Turns',
    write: count,
    empty: 'No turn in this time.',
    curves: (history) => [
      { name: 'answered', values: history.answered },
      { name: 'failed upstream', values: history.failed },
      { name: 'left by the visitor', values: history.left },
    ],
  },
  {
    title: 'Refusals by reason',
    write: count,
    empty: 'Nobody was refused in this time.',
    curves: (history) => byReason(history.refused),
  },
  {
    title: 'Time to first token',
    write: duration,
    empty: 'No answer began in this time.',
    curves: (history) => [
      { name: 'half of them within (p50)', values: history.ttfb_p50_ms },
      { name: '95 % within (p95)', values: history.ttfb_p95_ms },
    ],
  },
  {
    title: 'Streams in flight, the most at a time',
    write: count,
    empty: 'No stream in this time.',
    curves: (history) => [{ name: 'streams', values: history.streams }],
  },
  {
    title: 'Money of the day, USD',
    write: usd,
    empty: 'Nothing was spent in this time.',
    curves: (history, state) => ofMoney(
      history.spent_micro_usd, history.held_micro_usd, state?.cap_micro_usd,
    ),
  },
];

/** One plot with its legend and its table. */
class Plot {
  /** @param {Kind} kind */
  constructor(kind) {
    this.kind = kind;
    this.figure = element('figure');
    this.canvas = element('div', undefined, 'plot');
    this.canvas.setAttribute('aria-hidden', 'true');
    this.legend = element('ul', undefined, 'legend');
    this.none = element('p', kind.empty, 'none');
    this.details = /** @type {HTMLDetailsElement} */ (element('details'));
    this.table = element('div');
    const summary = element('summary', 'As a table');
    summary.append(element('span', `: ${kind.title}`, 'unseen'));
    this.details.append(summary, this.table);
    this.details.addEventListener('toggle', () => this.fill());
    const caption = element('figcaption');
    caption.append(element('h3', kind.title), this.legend);
    this.figure.append(caption, this.canvas, this.none, this.details);
    /** @type {Drawn} */
    this.drawn = { at: [], curves: [] };
    /** @type {uPlot | null} */
    this.chart = null;
    new ResizeObserver(() => this.chart?.setSize(this.size())).observe(this.figure);
  }

  size() {
    return { width: Math.max(240, Math.floor(this.figure.clientWidth)), height: HEIGHT };
  }

  /** @param {any} history @param {any} state */
  show(history, state) {
    const before = this.drawn.curves.map(({ name }) => name).join();
    this.drawn = { at: history.at, curves: this.kind.curves(history, state) };
    const isEmpty = this.drawn.curves.every(({ values }) => !total(values));
    this.none.hidden = !isEmpty;
    this.canvas.hidden = this.legend.hidden = this.details.hidden = isEmpty;
    if (isEmpty) return;
    if (!this.chart || this.drawn.curves.map(({ name }) => name).join() !== before) this.draw();
    else this.chart.setData(this.data());
    this.say(null);
    this.fill();
  }

  data() {
    return [this.drawn.at, ...this.drawn.curves.map(({ values }) => values)];
  }

  /** Make the chart anew: other curves, or other colours. */
  draw() {
    this.chart?.destroy();
    this.chart = null;
    if (this.canvas.hidden) return;
    this.makeLegend();
    const ink = getComputedStyle(this.none).color;
    const curves = [...this.legend.querySelectorAll('.swatch')].map((swatch, at) => ({
      stroke: getComputedStyle(swatch).color,
      width: 2,
      dash: DASHES[at % DASHES.length],
      points: { show: false },
    }));
    this.chart = new uPlot({
      ...this.size(),
      tzDate: (/** @type {number} */ at) => uPlot.tzDate(new Date(at * 1000), 'Etc/UTC'),
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
      scales: { y: { range: fromZero } },
      axes: this.axes(ink),
      series: [{}, ...curves],
      hooks: { setCursor: [(/** @type {uPlot} */ chart) => this.say(chart.cursor.idx ?? null)] },
    }, this.data(), this.canvas);
  }

  /** @param {string} ink */
  axes(ink) {
    const font = `12px ${getComputedStyle(this.figure).fontFamily}`;
    const axis = { stroke: ink, font, ticks: { show: false } };
    const times = (/** @type {unknown} */ _, /** @type {number[]} */ at) => at.map(clock);
    const amounts = (/** @type {unknown} */ _, /** @type {number[]} */ marks) => (
      marks.map(this.kind.write)
    );
    const whole = this.kind.write === count ? { incrs: WHOLE } : {};
    return [
      { ...axis, size: 28, space: 70, grid: { show: false }, values: times },
      { ...axis, size: 66, grid: { stroke: fade(ink), width: 1 }, values: amounts, ...whole },
    ];
  }

  makeLegend() {
    this.legend.replaceChildren(...this.drawn.curves.map(({ name }, at) => {
      const item = element('li');
      const kind = `swatch s${(at % COLOURS) + 1} ${DASHED[at % DASHED.length]}`;
      const swatch = element('span', undefined, kind);
      item.append(swatch, `${name} `, element('span', '', 'value'));
      return item;
    }));
  }

  /** Say the values below the cursor, or the latest. @param {number | null} at */
  say(at) {
    const values = [...this.legend.querySelectorAll('.value')];
    const index = at ?? this.drawn.at.length - 1;
    this.drawn.curves.forEach((curve, number) => {
      const value = curve.values[index];
      const when = at === null || number ? '' : ` at ${clock(this.drawn.at[index])}`;
      if (values[number]) values[number].textContent = `${this.write(value)}${when}`;
    });
  }

  /** @param {number | null | undefined} value */
  write(value) {
    return value === null || value === undefined ? '–' : this.kind.write(value);
  }

  /** The table, the latest first; made only while it is open. */
  fill() {
    if (!this.details.open || !this.drawn.at.length) return;
    const { at, curves } = this.drawn;
    const heads = [{ text: 'UTC' }, ...curves.map(({ name }) => number(name))];
    const rows = at.map((seconds, index) => [
      { text: clock(seconds) },
      ...curves.map(({ values }) => number(this.write(values[index]))),
    ]).reverse();
    show(this.table, this.kind.title, heads, rows, this.kind.empty);
  }
}

/** @param {string} text @returns {import('./tables.js').Cell} */
const number = (text) => ({ text, kind: 'number' });

/**
 * @param {unknown} _
 * @param {number} __
 * @param {number} top
 * @returns {[number, number]}
 */
const fromZero = (_, __, top) => [0, top > 0 ? top * 1.1 : 1];

/** A colour that only hints at itself. @param {string} rgb */
const fade = (rgb) => rgb.replace(/^rgb\((.*)\)$/, 'rgba($1, 0.2)');

/** Puts the plots into their place, and returns how to show a history in them. */
export const plotsIn = (/** @type {HTMLElement} */ place) => {
  const plots = KINDS.map((kind) => new Plot(kind));
  place.replaceChildren(...plots.map(({ figure }) => figure));
  const recolour = () => plots.forEach((plot) => plot.draw());
  const theme = { attributeFilter: ['data-theme'] };
  new MutationObserver(recolour).observe(document.documentElement, theme);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', recolour);
  return (/** @type {any} */ history, /** @type {any} */ state) => {
    plots.forEach((plot) => plot.show(history, state));
  };
};
