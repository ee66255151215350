/** The line that says how it stands, and the seconds that are waited out. */

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const [status, waiting, stop, announcer] = ['status', 'waiting', 'stop', 'announcer'].map(part);
let ticking = 0;

/** @param {string} words @param {boolean} [fault] */
export function say(words, fault = false) {
  status.textContent = words;
  status.classList.toggle('fault', fault);
}

/** Whether something is said. */
export const isSaid = () => status.textContent !== '';

/** Tells whoever listens what a whole answer says, once. @param {string} words */
export function announce(words) {
  announcer.textContent = words;
}

/** Says what is done before an attempt's outcome is final. @param {import('./client.d.ts').Exchange} of */
export function sayRemedy({ remedy, response }) {
  stopWaiting();
  if (remedy === 'wait') {
    say('The server asks to wait; then your message is sent by itself.');
    countDown(Number(response?.headers.get('Retry-After')) || 1);
  } else if (remedy === 'resend') {
    say('The connection failed; your message is sent again as soon as it is back.');
  }
}

/** Seen, not spoken: who listens was told once. @param {number} seconds */
function countDown(seconds) {
  const until = Date.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    waiting.textContent = left > 0 ? `waiting ${left} s` : 'sending';
  };
  tick();
  ticking = setInterval(tick, 250);
  waiting.hidden = false;
  stop.textContent = 'Cancel';
}

export function stopWaiting() {
  clearInterval(ticking);
  waiting.hidden = true;
  stop.textContent = 'Stop';
}
