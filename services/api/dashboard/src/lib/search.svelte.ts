// A search in what is stored: pages of records, newest first, until the reader has enough. Static:
// the stream does not touch it.

import { ApiError, getLogs } from './api';
import { queryOf, windowOf, type Filter } from './filter';
import type { LogRecord } from './types';

/** Records of one page, and most records kept for one search. */
export const PAGE_ROWS = 200;
export const SEARCH_ROWS_MAX = 10_000;

export class Search {
  rows: LogRecord[] = $state.raw([]);
  next: string | null = $state(null);
  /** Raised when the first page of another search is there: its list starts at the newest row. */
  turn = $state(0);
  busy = $state(false);
  error: string | null = $state(null);
  /** The limit was reached with more to come. */
  full = $state(false);

  #key: string;
  #asked: Record<string, string | number> = {};
  #abort: AbortController | null = null;

  constructor(key: string) {
    this.#key = key;
  }

  run(filter: Filter): Promise<void> {
    this.#asked = { ...queryOf(filter), ...windowOf(filter, Date.now()), limit: PAGE_ROWS };
    this.next = null;
    this.full = false;
    return this.#page([]);
  }

  more(): Promise<void> {
    if (this.busy || this.next === null || this.full) return Promise.resolve();
    return this.#page(this.rows);
  }

  stop(): void {
    this.#abort?.abort();
    this.busy = false;
  }

  async #page(before: LogRecord[]): Promise<void> {
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.busy = true;
    this.error = null;
    const cursor = before.length === 0 ? {} : { cursor: this.next ?? '' };
    try {
      const page = await getLogs(this.#key, { ...this.#asked, ...cursor }, abort.signal);
      if (before.length === 0) this.turn += 1;
      this.rows = [...before, ...page.items].slice(0, SEARCH_ROWS_MAX);
      this.next = page.next;
      this.full = page.next !== null && SEARCH_ROWS_MAX <= this.rows.length;
    } catch (error) {
      if (abort.signal.aborted) return;
      this.error = error instanceof ApiError ? error.message : 'the search failed';
    } finally {
      if (this.#abort === abort) this.busy = false;
    }
  }
}
