// Records a second over the last two minutes, by weight: the rate in the top bar and the small
// chart over the log. Counts only; whoever owns it calls tick() once a second.

import type { LogRecord } from './types';

/** Seconds kept for the chart. */
export const SECONDS_MAX = 120;
/** Seconds the rate is averaged over: short enough to feel live, long enough to be read. */
const RATE_SECONDS = 3;

export interface Second {
  all: number;
  warn: number;
  error: number;
}

function none(): Second {
  return { all: 0, warn: 0, error: 0 };
}

export class Activity {
  /** Oldest first; the last one is the running second. */
  seconds: Second[] = Array.from({ length: SECONDS_MAX }, none);

  push(records: readonly LogRecord[]): void {
    const second = this.seconds[this.seconds.length - 1];
    if (!second) return;
    second.all += records.length;
    for (const record of records) {
      const level = record.observer.level;
      if (level === 'warn') second.warn += 1;
      else if (level === 'error' || level === 'fatal') second.error += 1;
    }
  }

  tick(): void {
    this.seconds.push(none());
    this.seconds.shift();
  }

  reset(): void {
    this.seconds = Array.from({ length: SECONDS_MAX }, none);
  }

  /** Records a second, over the last whole seconds. */
  get rate(): number {
    const whole = this.seconds.slice(-1 - RATE_SECONDS, -1);
    return whole.reduce((sum, second) => sum + second.all, 0) / RATE_SECONDS;
  }
}
