/** Shows a spent token again, as whoever stole it would, and says what the server makes of that. */

/** @typedef {import('./record.js').Spent} Spent */

const WHAT_BECAME = {
  kept: 'The chain is kept: so soon after its turn this may be a second click or a lost answer, '
    + 'so it costs nothing but the try.',
  revoked: 'The whole chain is revoked, as for a stolen token: nobody can go on with it, neither '
    + 'the thief nor you. Your next turn begins a new chain by itself.',
  none: 'The chain is gone. Your next turn begins a new one by itself.',
};

/** @param {Spent} spent @returns {Promise<string[]>} what came of it, in sentences */
export async function replay({ token, fingerprint, clock }) {
  const response = await fetch('/v1/chat/completions', {
    method: 'POST',
    headers: {
      'Content-Type': 'application/json',
      Authorization: `Bearer ${token}`,
      'Keyturn-Fingerprint': fingerprint,
      'Keyturn-Timestamp': String(Date.now() + clock),
    },
    body: JSON.stringify({ messages: [{ role: 'user', content: 'Once more.' }], max_tokens: 1 }),
  }).catch(() => undefined);
  if (!response) return ['There was no answer.'];
  const problem = await response.json().catch(() => ({}));
  if (response.ok) return ['It was admitted: the token was not spent.'];
  const chain = /** @type {keyof typeof WHAT_BECAME} */ (problem.chain);
  const became = problem.code?.startsWith('token_') || problem.code?.startsWith('chain_');
  return [`${response.status} ${problem.code}: ${problem.title}.`,
    became ? WHAT_BECAME[chain] ?? '' : 'It was refused before the token was looked at.'];
}
