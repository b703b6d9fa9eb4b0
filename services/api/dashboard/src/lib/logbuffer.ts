// The log's rows in memory: a bounded ring, and beside it a bounded waiting room while the reader
// has paused. Counts whatever leaves unseen. No timers, no rendering.

import type { LogRecord } from './types';

/** Rows kept for scrolling back; the oldest leave first, and are counted. */
export const ROWS_MAX = 20_000;
/** Rows that wait while paused; past it the oldest waiting ones are dropped, and counted. */
export const WAITING_MAX = 20_000;

export type LogRow =
  | { n: number; kind: 'log'; record: LogRecord }
  | { n: number; kind: 'gap'; count: number; reason: string };

/** A fixed-size queue: pushing past the end overwrites the oldest. */
export class Ring<T> {
  readonly capacity: number;
  #slots: T[] = [];
  #first = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
  }

  get length(): number {
    return this.#slots.length;
  }

  at(index: number): T | undefined {
    if (index < 0 || this.#slots.length <= index) return undefined;
    return this.#slots[(this.#first + index) % this.#slots.length];
  }

  /** Adds one; the one that had to leave is returned. */
  push(item: T): T | undefined {
    if (this.#slots.length < this.capacity) {
      this.#slots.push(item);
      return undefined;
    }
    const old = this.#slots[this.#first];
    this.#slots[this.#first] = item;
    this.#first = (this.#first + 1) % this.capacity;
    return old;
  }

  slice(from: number, to: number): T[] {
    const out: T[] = [];
    const end = Math.min(to, this.length);
    for (let i = Math.max(0, from); i < end; i++) out.push(this.at(i) as T);
    return out;
  }

  clear(): void {
    this.#slots = [];
    this.#first = 0;
  }
}

export class LogBuffer {
  #rows: Ring<LogRow>;
  #waiting: Ring<LogRow>;
  #next = 1;
  #hiddenBefore = 0;
  #paused = false;

  /** Records that arrived live, whatever became of them; what history brought is not among them. */
  received = 0;
  /** Records lost before they arrived here, as gap rows said. */
  lost = 0;
  /** Records that left the ring because it was full. */
  evicted = 0;
  /** Records dropped from the waiting room, in all pauses. */
  droppedPaused = 0;
  /** The same, in this pause. */
  droppedWaiting = 0;

  constructor(rowsMax = ROWS_MAX, waitingMax = WAITING_MAX) {
    this.#rows = new Ring(rowsMax);
    this.#waiting = new Ring(waitingMax);
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Rows that came since the pause began and can still be shown. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Rows to show: all that are kept and not hidden by clear(). */
  get length(): number {
    return this.#rows.length - this.#hiddenCount();
  }

  get hidden(): number {
    return this.#hiddenCount();
  }

  at(index: number): LogRow | undefined {
    return this.#rows.at(index + this.#hiddenCount());
  }

  slice(from: number, to: number): LogRow[] {
    const hidden = this.#hiddenCount();
    return this.#rows.slice(Math.max(0, from) + hidden, to + hidden);
  }

  /** Number of the first row that is kept; rows keep their number for as long as they live. */
  get firstNumber(): number {
    return this.at(0)?.n ?? this.#next;
  }

  push(records: readonly LogRecord[]): void {
    this.history(records);
    this.received += records.length;
  }

  /** Adds records that were stored before the stream began. */
  history(records: readonly LogRecord[]): void {
    for (const record of records) this.#add({ n: this.#next++, kind: 'log', record });
  }

  gap(count: number, reason: string): void {
    this.lost += count;
    this.#add({ n: this.#next++, kind: 'gap', count, reason });
  }

  /** Freezes the rows; what comes waits. */
  pause(): void {
    this.#paused = true;
  }

  /** Shows what waited, with a gap row in front when some of it had to go. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    const waiting = this.#waiting.slice(0, this.#waiting.length);
    this.#waiting.clear();
    if (0 < this.droppedWaiting) {
      const n = waiting[0]?.n ?? this.#next++;
      // Shares the place of the first row that survived, half a step before it.
      this.#keep({ n: n - 0.5, kind: 'gap', count: this.droppedWaiting, reason: 'paused' });
      this.droppedWaiting = 0;
    }
    for (const row of waiting) this.#keep(row);
  }

  /** Hides all rows from view, here only; undoClear() brings them back. */
  clear(): void {
    const last = this.#rows.at(this.#rows.length - 1);
    if (last) this.#hiddenBefore = last.n + 0.25;
  }

  undoClear(): void {
    this.#hiddenBefore = 0;
  }

  /** Forgets all rows, for another filter or project; counts go on. */
  reset(): void {
    this.#rows.clear();
    this.#waiting.clear();
    this.#hiddenBefore = 0;
    this.#paused = false;
    this.droppedWaiting = 0;
  }

  /** The place of row number `n`, or -1 when it is hidden or gone. Rows are in order. */
  indexOf(n: number): number {
    let low = 0;
    let high = this.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const found = this.at(middle)?.n ?? Infinity;
      if (found === n) return middle;
      if (found < n) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  #add(row: LogRow): void {
    if (!this.#paused) {
      this.#keep(row);
      return;
    }
    const gone = this.#waiting.push(row);
    if (gone?.kind !== 'log') return; // A gap's count is in `lost` already.
    this.droppedWaiting += 1;
    this.droppedPaused += 1;
  }

  #keep(row: LogRow): void {
    const gone = this.#rows.push(row);
    if (gone?.kind === 'log') this.evicted += 1;
  }

  #hiddenCount(): number {
    if (this.#hiddenBefore === 0) return 0;
    let low = 0;
    let high = this.#rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#rows.at(middle)?.n ?? Infinity) < this.#hiddenBefore) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
