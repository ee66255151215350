/** A button that copies a text, and says whether it did. */

const SHOWN_FOR = 2000; // milliseconds

/** @param {() => string} textOf what to copy @param {string} [label] what the button is called
 * @returns {HTMLButtonElement} */
export function copyButton(textOf, label = 'Copy') {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'quiet';
  button.textContent = label;
  let shown = 0;
  button.addEventListener('click', async () => {
    const copied = await copy(textOf());
    button.textContent = copied ? 'Copied' : 'Select it and copy by hand';
    clearTimeout(shown);
    shown = setTimeout(() => (button.textContent = label), SHOWN_FOR);
  });
  return button;
}

/** @param {string} text */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text); // plain http has no clipboard
    return true;
  } catch {
    return false;
  }
}
