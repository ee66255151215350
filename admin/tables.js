/** Tables, made by element and text; no string becomes markup. */

/** @typedef {{text: string, kind?: 'name' | 'number'}} Cell */

/**
 * @param {string} tag
 * @param {string} [text]
 * @param {string} [kind]
 */
export const element = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

/**
 * A table that can be scrolled by keyboard too.
 *
 * @param {string} label
 * @param {Cell[]} heads
 * @param {(Cell | HTMLElement[])[][]} rows
 */
export const tableOf = (label, heads, rows) => {
  const table = element('table');
  table.append(element('caption', label, 'unseen'), element('thead'), element('tbody'));
  const head = element('tr');
  for (const { text, kind } of heads) {
    const cell = element('th', text, kind);
    cell.setAttribute('scope', 'col');
    head.append(cell);
  }
  table.children[1].append(head);
  table.children[2].append(...rows.map(rowOf));
  const scroller = element('div', undefined, 'table');
  scroller.setAttribute('role', 'group');
  scroller.setAttribute('aria-label', label);
  scroller.tabIndex = 0;
  scroller.append(table);
  return scroller;
};

/** @param {(Cell | HTMLElement[])[]} cells */
const rowOf = (cells) => {
  const row = element('tr');
  cells.forEach((cell, at) => {
    const made = element(at === 0 ? 'th' : 'td');
    if (at === 0) made.setAttribute('scope', 'row');
    if (Array.isArray(cell)) made.append(...cell);
    else {
      made.textContent = cell.text;
      if (cell.kind) made.className = cell.kind;
    }
    row.append(made);
  });
  return row;
};

/**
 * Put a new table in the place of the old one, unless it says the same: whoever reads it or has the
 * focus in it is not disturbed.
 *
 * @param {HTMLElement} place
 * @param {string} label
 * @param {Cell[]} heads
 * @param {(Cell | HTMLElement[])[][]} rows
 * @param {string} empty what is said where there are no rows
 */
export const show = (place, label, heads, rows, empty) => {
  const made = rows.length ? tableOf(label, heads, rows) : element('p', empty, 'none');
  const [old] = place.children;
  if (old?.isEqualNode(made)) return;
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const name = focused?.getAttribute('aria-label');
  const { scrollLeft = 0, scrollTop = 0 } = old ?? {};
  place.replaceChildren(made);
  made.scrollTo?.(scrollLeft, scrollTop);
  if (!focused) return;
  const again = [made, ...made.querySelectorAll('button')]
    .find((each) => each.getAttribute('aria-label') === name);
  /** @type {HTMLElement} */ (again ?? made).focus();
};
