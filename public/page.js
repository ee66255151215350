/**
 * The demo page: one conversation, in memory, sent through client.js or by the visitor's own key.
 *
 * The law: what came over the wire becomes text, never markup; what was not answered goes back
 * into the box; every failure is said in words.
 */
import { createFetch, readEvents } from './client.js';
import * as ownKey from './own_key.js';

const MOST_MESSAGES = 20;

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const [form, box, send, stop] = ['form', 'message', 'send', 'stop'].map(part);
const [transcript, status] = ['transcript', 'status'].map(part);

const keyturn = createFetch();
/** @type {{ role: 'user' | 'assistant', content: string }[]} */
const conversation = [];
/** @type {AbortController | undefined} the answer under way */
let running;

/** A failure whose message is already in the visitor's words. */
class Refusal extends Error {
  /** @param {string} message @param {string} [reason] the problem's code */
  constructor(message, reason) {
    super(message);
    this.reason = reason;
  }
}

/** @param {string} words @param {boolean} [fault] */
function say(words, fault = false) {
  status.textContent = words;
  status.classList.toggle('fault', fault);
}

/** @param {string} who @param {string} className */
function addMessage(who, className) {
  const message = document.createElement('article');
  message.className = `message ${className}`;
  const name = message.appendChild(document.createElement('p'));
  name.className = 'who';
  name.textContent = who;
  const text = message.appendChild(document.createElement('p'));
  text.className = 'text';
  transcript.append(message);
  return { message, words: text.appendChild(document.createTextNode('')) };
}

/** Adds to a text, and stays at the end if the reader is there.
 * @param {Text} words @param {string} more */
function write(words, more) {
  const atEnd = transcript.scrollHeight - transcript.scrollTop - transcript.clientHeight < 48;
  words.appendData(more);
  if (atEnd) showEnd();
}

function showEnd() {
  transcript.scrollTop = transcript.scrollHeight;
}

/** @param {AbortController} [controller] */
function setRunning(controller) {
  running = controller;
  const focused = document.activeElement;
  send.disabled = Boolean(controller);
  stop.disabled = !controller;
  transcript.setAttribute('aria-busy', String(Boolean(controller)));
  if (focused === send || focused === stop) box.focus(); // a disabled button would lose the focus
}

/** The last messages, beginning with one of the visitor's. */
function recentMessages() {
  const recent = conversation.slice(-MOST_MESSAGES);
  return recent[0]?.role === 'assistant' ? recent.slice(1) : recent;
}

/** @param {number} seconds */
function inWords(seconds) {
  const [count, unit] = seconds < 120 ? [seconds, 'second']
    : seconds < 7200 ? [Math.ceil(seconds / 60), 'minute'] : [Math.ceil(seconds / 3600), 'hour'];
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}

/** When to come again: a budget's end has its place on the visitor's clock.
 * @param {string} code @param {number} seconds */
function when(code, seconds) {
  const isReset = code.startsWith('budget_') && seconds > 60;
  if (!isReset) return `Try again in ${inWords(seconds)}`;
  const minute = Math.round((Date.now() / 1000 + seconds) / 60) * 60_000;
  const clock = new Date(minute).toLocaleTimeString([], { timeStyle: 'short' });
  return `The next budget begins at ${clock}, within ${inWords(seconds)}`;
}

/** @param {Response} response @returns {Promise<Refusal>} */
async function refusalOf(response) {
  const problem = await response.json().catch(() => undefined);
  const title = problem?.title ?? `The server answered ${response.status}`;
  const code = String(problem?.code);
  const wait = Number(response.headers.get('Retry-After'));
  // Where there is a wait, the problem's own words speak to programs about headers.
  const parts = [title, wait > 0 ? when(code, wait) : problem?.detail, ownKey.askAfter(code)];
  const said = parts.filter((words) => typeof words === 'string' && words);
  const words = said.map((words) => (/[.!?]$/.test(words) ? words : `${words}.`)).join(' ');
  return new Refusal(words, code);
}

/** @param {unknown} error */
function wordsFor(error) {
  if (error instanceof Refusal) return error.message;
  if (error instanceof DOMException && error.name === 'AbortError') return 'Stopped.';
  return 'The connection failed. Check it and try again.';
}

/** @param {string} data @returns {any} nothing, if it is not JSON, as [DONE] is not */
function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

/** Writes the answer as it comes; returns why it ended.
 * @param {Response} response @param {Text} words */
async function relay(response, words) {
  let finish;
  // Reads on after [DONE]: to leave there would be to hang up before the server's last byte.
  for await (const data of readEvents(response)) {
    const frame = parse(data);
    if (frame?.error) throw new Refusal(frame.error.message || 'The answer broke off.');
    const choice = frame?.choices?.[0];
    write(words, choice?.delta?.content ?? choice?.delta?.refusal ?? '');
    finish = choice?.finish_reason ?? finish;
  }
  if (!finish) throw new Refusal('The answer broke off.');
  return finish;
}

/** Sends the conversation. @param {Text} words where the answer goes @param {AbortSignal} signal */
async function complete(words, signal) {
  const post = ownKey.inUse() ? ownKey.ownFetch : keyturn;
  const response = await post('/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ stream: true, messages: recentMessages() }),
    signal,
  });
  if (!response.ok) throw await refusalOf(response);
  say('Answering…');
  const finish = await relay(response, words);
  if (finish === 'length') say('The answer was cut: it reached its greatest length.');
  else if (finish === 'content_filter') say('The answer was withheld by a content filter.');
  else say('');
}

/** @param {string} text */
async function ask(text) {
  ownKey.withdraw();
  const [mine, theirs] = [addMessage('You', 'mine'), addMessage('Assistant', 'theirs')];
  write(mine.words, text);
  showEnd();
  conversation.push({ role: 'user', content: text });
  const controller = new AbortController();
  setRunning(controller);
  say('Waiting for the answer…');
  let refused;
  await complete(theirs.words, controller.signal).catch((error) => {
    refused = error.reason;
    say(wordsFor(error), !controller.signal.aborted);
  });
  setRunning();
  ownKey.offerAfter(refused);
  if (theirs.words.data) {
    conversation.push({ role: 'assistant', content: theirs.words.data });
  } else {
    takeBack(text, mine.message, theirs.message);
  }
}

/** Puts an unanswered message back into the box. @param {string} text @param {Element[]} shown */
function takeBack(text, ...shown) {
  conversation.pop();
  shown.forEach((element) => element.remove());
  box.value = [text, box.value].filter(Boolean).join('\n');
  if (!status.textContent) say('The answer was empty.', true);
  showEnd();
}

/** Shows what this server has: made-up answers, documentation. Silence of readiness says none. */
async function showWhatThereIs() {
  const text = await fetch('/readyz').then((response) => response.text()).catch(() => '');
  part('demo').hidden = !/"upstream"\s*:\s*"demo"/.test(text);
  part('docs').hidden = !/"docs"\s*:\s*"on"/.test(text);
  ownKey.setTaken(/"byok"\s*:\s*"on"/.test(text));
}

form.addEventListener('submit', (/** @type {Event} */ event) => {
  event.preventDefault();
  if (running) return;
  const text = box.value;
  if (!text.trim()) return box.focus();
  box.value = '';
  ask(text);
});

box.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
  const composing = event.isComposing || event.keyCode === 229; // Safari says 229 only
  if (event.key !== 'Enter' || event.shiftKey || composing) return;
  event.preventDefault();
  form.requestSubmit();
});

stop.addEventListener('click', () => running?.abort());

ownKey.listen(say, () => box.focus(), () => form.requestSubmit());

showWhatThereIs();
