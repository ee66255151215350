/** Types of client.js. How to use it: docs/browser.md */

/** What is done about a refusal or a lost connection before the caller hears of it. */
export type Remedy = 'right clock' | 'new chain' | 'successor' | 'resend' | 'wait';

/** A refusal's body, RFC 9457. */
export interface Problem {
  code: string;
  status: number;
  title: string;
  detail: string;
  chain?: 'kept' | 'none' | 'revoked' | 'advanced' | 'unknown';
  request_id: string;
  server_time_ms: number;
  /** More members: `type`, `error`, `param`. */
  [more: string]: unknown;
}

/** One attempt of a send. */
export interface Exchange {
  /** 1, 2, … */
  attempt: number;
  /** Unix milliseconds. */
  startedAt: number;
  /** Milliseconds until the headers, or the failure. */
  ms: number;
  /** The headers shown. */
  sent: Headers;
  /** Its body is the caller's: do not read it. None: the connection failed. */
  response?: Response;
  /** Why it was refused, if it was. */
  problem?: Problem;
  /** What is done about it. None: the answer, or the failure, goes to the caller. */
  remedy?: Remedy;
}

/** Keeps a few short strings: `sessionStorage`, `localStorage`, or whatever has these three. */
export type Store = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;

export interface Options {
  /** Where Keyturn is, with or without `/v1` at its end. Default: the origin of this page. */
  baseURL?: string | URL;
  /** 16 to 128 of `A-Z a-z 0-9 . _ ~ -`. Default: this tab's, made of coarse signals. */
  fingerprint?: string | (() => string | Promise<string>);
  /** Keeps the token. Default: `sessionStorage`; memory, where there is none or it is refused. */
  storage?: Store;
  /** A visitor's own key. While there is one it is sent in place of all else, beside the chain. */
  ownKey?: string | (() => string | undefined);
  /** Seconds that one send may wait in all for better times. Default: 30. 0 never waits. */
  maxWait?: number;
  /** Hears of every attempt of a POST under `/v1/`. */
  onExchange?: (exchange: Exchange) => void;
}

/** What `fetch` is. */
export type Fetch = (input: RequestInfo | URL, init?: RequestInit) => Promise<Response>;

/** Returns a fetch that passes Keyturn's gate; requests to other servers pass as they are. */
export function createFetch(options?: Options): Fetch;

/** Yields the data of each server-sent event; an unfinished one never. */
export function readEvents(response: Response): AsyncGenerator<string, void, unknown>;

/**
 * The newest messages that fit, beginning with one of the user's, after those of system and
 * developer at the head; the same array, if all fits.
 */
export function trimHistory<M extends object>(
  messages: M[],
  limits?: {
    /** Default: 50. */
    maxMessages?: number;
    /** Of the list as JSON in UTF-8. Default: 200,000. */
    maxBytes?: number;
  },
): M[];
