/**
 * The demo page: one conversation of this tab, sent through client.js.
 *
 * The law: what came over the wire becomes text, never markup; what was not answered goes back
 * into the box; every failure is said in words. The conversation lives as long as its tab: a reload
 * brings it back, as client.js does the chain.
 */
import { relay } from './answer.js';
import { createFetch } from './client.js';
import { Composer, joined, sends } from './composer.js';
import { before, toSend, unanswered } from './conversation.js';
import * as kept from './kept.js';
import * as ownKey from './own_key.js';
import { askSite, Models } from './site.js';
import { announce, isSaid, say, sayRemedy, stopWaiting } from './status.js';
import { Transcript } from './transcript.js';
import { listen as listenToWire, WireTurn } from './wire.js';
import { endOf, Refusal, refusalOf, tooLong, wordsFor } from './wording.js';

/** @typedef {import('./conversation.js').Message} Message */
/**
 * @typedef {object} Turn one under way
 * @property {Message} answer
 * @property {Message[]} previous the conversation before it
 * @property {string} typed what the visitor wrote for it
 * @property {() => void} giveBack brings that back to where it was written
 * @property {WireTurn} wire
 * @property {AbortController} stop
 */

/** @param {string} id @returns {any} */
const part = (id) => document.getElementById(id);
const [form, box, send, stop] = ['form', 'message', 'send', 'stop'].map(part);

const composer = new Composer(box, part('count'));
const models = new Models(part('model'));
const transcript = new Transcript(part('transcript'), part('to-end'), { edit, retry });
const keyturn = createFetch({
  ownKey: ownKey.current,
  onExchange: (exchange) => {
    const label = exchange.sent.get('X-Request-Id') ?? '';
    wires.get(label)?.attempt(exchange); // one that was stopped may hear late of its token
    if (running && label === labelOf(running.answer)) sayRemedy(exchange);
  },
});
/** @type {Map<string, WireTurn>} each turn's, by its label */
const wires = new Map();
const labelOf = (/** @type {Message} */ answer) => `turn-${answer.id}`;

/** @type {Message[]} */
let messages = [];
/** @type {Message[]} the chat before the last "New chat" */
let lastChat = [];
/** @type {import('./conversation.js').Limits} */
let limits = {};
/** @type {Turn | undefined} */
let running;
/** @type {number | undefined} the message that is being changed */
let editing;
let lastId = 0;
let again = () => {}; // what was refused and left nothing in the box

/** @param {Message[]} now the conversation from now on */
function show(now) {
  messages = now;
  transcript.show(messages, toSend(messages, limits).leftOut);
  part('empty').hidden = messages.length > 0;
  part('last-chat').hidden = !lastChat.length;
  part('new').disabled = !messages.length;
}

/** @param {'user' | 'assistant'} role @param {string} content @returns {Message} */
function message(role, content) {
  lastId = Math.max(lastId, Date.now()) + 1;
  return { id: lastId, role, content };
}

/** @param {string} text */
function ask(text) {
  take([...messages, message('user', text)], text, () => composer.giveBack(text));
}

/** Has another answer written in the place of the last one. */
function retry() {
  if (running) return;
  endEdit();
  transcript.focus();
  take(unanswered(messages), '', () => (again = retry));
}

/** Takes an earlier message into the box; sent, it takes its old place.
 * @param {number} id @param {string} [text] what it is to say, so far */
function edit(id, text = messages.find((said) => said.id === id)?.content ?? '') {
  if (running) return;
  endEdit();
  editing = id;
  composer.swap(text);
  transcript.mark(id);
  part('editing').hidden = false;
}

function endEdit() {
  if (editing !== undefined) composer.swapBack();
  editing = undefined;
  transcript.mark();
  part('editing').hidden = true;
}

/** Sends a conversation and shows the answer as it comes. Without one all is as it was.
 * @param {Message[]} next @param {string} typed @param {() => void} giveBack */
async function take(next, typed, giveBack) {
  const answer = message('assistant', '');
  const wire = new WireTurn(labelOf(answer), Boolean(ownKey.current()));
  wires.set(labelOf(answer), wire);
  const turn = { answer, previous: messages, typed, giveBack, wire, stop: new AbortController() };
  ownKey.fold();
  again = () => {};
  setRunning(turn);
  show([...next, answer]);
  transcript.showEnd();
  say('Waiting for the answer…');
  const failure = await complete(next, turn).catch((error) => error);
  wire.end();
  if (running !== turn) return; // another chat was begun
  setRunning();
  const reason = failure instanceof Refusal ? failure.reason : undefined;
  if (failure) say(joined(' ', wordsFor(failure), ownKey.askAfter(reason)), !turn.stop.signal.aborted);
  end(turn);
  ownKey.offerAfter(reason);
}

/** @param {Message[]} next @param {Turn} turn */
async function complete(next, { answer, wire, stop: { signal } }) {
  const body = { stream: true, model: models.chosen, messages: toSend(next, limits).messages };
  const response = await keyturn('/v1/chat/completions', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Request-Id': labelOf(answer) },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await refusalOf(response);
  say('Answering…');
  const finish = await relay(response, (words) => {
    if (words && !transcript.textOf(answer.id)) wire.firstWord();
    transcript.write(answer.id, words);
  });
  say(endOf(finish));
}

/** Keeps what was answered; what was not is given back. @param {Turn} turn */
function end({ answer, previous, giveBack }) {
  const content = transcript.textOf(answer.id);
  const heard = transcript.end(answer.id);
  if (content) {
    show(messages.map((said) => (said === answer ? { ...said, content } : said)));
    announce(`Answer: ${heard}`);
  } else {
    if (!isSaid()) say('The answer was empty.', true);
    show(previous);
    giveBack();
  }
  store();
}

/** @param {Turn} [turn] the one under way, if any */
function setRunning(turn) {
  const focused = document.activeElement;
  running = turn;
  send.hidden = Boolean(turn);
  stop.hidden = !turn;
  stopWaiting();
  document.body.classList.toggle('answering', Boolean(turn));
  part('transcript').setAttribute('aria-busy', String(Boolean(turn)));
  if (turn) announce('');
  if (focused === send || focused === stop) composer.focus(); // what is hidden loses the focus
}

function newChat() {
  const turn = running;
  setRunning();
  turn?.stop.abort();
  if (turn) end(turn);
  endEdit();
  lastChat = messages;
  show([]);
  say('');
  store();
  composer.focus();
}

function store() {
  if (!running) return kept.store(messages, composer.draft);
  const { answer, previous, typed } = running;
  const content = transcript.textOf(answer.id);
  if (!content) return kept.store(previous, joined('\n', typed, composer.draft));
  const soFar = messages.map((said) => (said === answer ? { ...said, content } : said));
  kept.store(soFar, composer.draft);
}

function restore() {
  const found = kept.stored();
  lastId = Math.max(0, ...found.messages.map(({ id }) => id));
  composer.set(found.draft);
  show(found.messages);
  transcript.showEnd();
}

/** Shows what this server has, once it is known. */
async function showSite() {
  const site = await askSite();
  limits = site.limits;
  part('demo').hidden = !site.demo;
  document.querySelectorAll('.docs').forEach((each) => each.toggleAttribute('hidden', !site.docs));
  const offer = () =>
    models.offer(ownKey.current() ? site.ownModels : site.models, site.defaultModel);
  ownKey.setTaken(site.ownKeys);
  ownKey.listen({ goBack: () => composer.focus(), goOn, changed: offer });
  offer();
  composer.limit(limits.max_message_chars);
  show(messages);
}

function goOn() {
  if (composer.text.trim()) form.requestSubmit();
  else again();
}

form.addEventListener('submit', (/** @type {Event} */ event) => {
  event.preventDefault();
  if (running) return;
  const { text, excess } = composer;
  if (!text.trim()) return composer.focus();
  if (excess) return say(tooLong(excess), true);
  const id = editing;
  if (id === undefined) {
    composer.set('');
    return ask(text);
  }
  endEdit();
  take([...before(messages, id), message('user', text)], text, () => edit(id, text));
});

box.addEventListener('keydown', (/** @type {KeyboardEvent} */ event) => {
  if (!sends(event)) return;
  event.preventDefault();
  form.requestSubmit();
});

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.isComposing) return;
  if (running) running.stop.abort();
  else if (editing !== undefined) endEdit();
});

part('suggestions').addEventListener('click', (/** @type {any} */ { target }) => {
  if (target.matches('button') && !running) ask(target.textContent.replace(/\s+/g, ' ').trim());
});

stop.addEventListener('click', () => running?.stop.abort());
part('keep').addEventListener('click', () => (endEdit(), composer.focus()));
part('new').addEventListener('click', newChat);
part('last-chat').addEventListener('click', () => (show(lastChat), store(), composer.focus()));
for (const leaving of ['pagehide', 'visibilitychange']) addEventListener(leaving, store);

listenToWire();
restore();
showSite();
