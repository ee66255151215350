/** What this server has: its models and limits, and whether it is a demo. Silence says nothing. */
import { parse } from './conversation.js';

/**
 * @typedef {object} Site
 * @property {boolean} demo whether answers are made up
 * @property {boolean} docs whether the API is documented here
 * @property {boolean} ownKeys whether a visitor may bring a key
 * @property {string[]} models
 * @property {string[]} ownModels for whoever brings one
 * @property {string} [defaultModel]
 * @property {import('./conversation.js').Limits} limits
 */

/** @returns {Promise<Site>} */
export async function askSite() {
  const [ready, list] = await Promise.all(['/readyz', '/v1/models'].map(read));
  const told = list?.keyturn ?? {};
  const models = (list?.data ?? []).map((/** @type {{ id: string }} */ model) => model.id);
  return {
    demo: ready?.upstream === 'demo',
    docs: ready?.docs === 'on',
    ownKeys: told.byok ?? ready?.byok === 'on',
    models,
    ownModels: told.byok_models ?? models,
    defaultModel: told.default_model,
    limits: told,
  };
}

/** @param {string} path @returns {Promise<any>} */
const read = (path) => fetch(path).then((response) => response.text()).then(parse, () => undefined);

/** The choice of a model: hidden where there is none. */
export class Models {
  #select;
  /** @type {string | undefined} */
  #usual;

  /** @param {HTMLSelectElement} select */
  constructor(select) {
    this.#select = select;
  }

  /** @param {string[]} models @param {string} [usual] what is asked where nobody chose */
  offer(models, usual) {
    const chosen = this.#select.value;
    this.#usual = usual;
    this.#select.replaceChildren(...models.map((model) => new Option(model, model)));
    const fitting = [chosen, usual].find((model) => model && models.includes(model));
    if (fitting) this.#select.value = fitting;
    this.#select.hidden = models.length < 2;
  }

  /** The model to ask; nothing, where the server's own choice will do. */
  get chosen() {
    return this.#select.value || this.#usual;
  }
}
