// One live stream: connects, hands frames on in order, and comes back with the cursor when it is
// lost. A state machine over an injected socket and clock: no DOM, no buffering, no rendering.

import type { Frame } from './types';

/** First and last step of the back-off, in milliseconds; each wait is a random part of its step. */
export const RETRY_MS_MIN = 500;
export const RETRY_MS_MAX = 5_000;
/** A socket that has said no hello after this long is given up. */
export const HELLO_MS_MAX = 10_000;
/** A stream that lived this long was a good one: the back-off starts anew. */
export const STABLE_MS = 5_000;

export type StreamState =
  | { name: 'stopped' }
  | { name: 'connecting'; attempt: number; since: number | null }
  | { name: 'live'; at: number }
  | { name: 'waiting'; attempt: number; since: number; retryAt: number; reason: string };

/** The part of WebSocket that is used, so that tests can play one. */
export interface Socket {
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: unknown) => void) | null;
  close(): void;
}

export interface StreamHost {
  /** Opens a socket; `cursor` is null for a fresh start. */
  open(cursor: string | null): Socket;
  frame(frame: Frame): void;
  state(state: StreamState): void;
  now(): number;
  random(): number;
  after(ms: number, run: () => void): unknown;
  cancel(timer: unknown): void;
}

/** The wait before attempt `n` (from 0): between the shortest wait and this attempt's step. */
export function retryDelay(attempt: number, random: number): number {
  const step = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(attempt + 1, 16));
  return Math.round(RETRY_MS_MIN + random * (step - RETRY_MS_MIN));
}

/** Says in words why a socket closed. */
export function closeReason(code: number, reason: string): string {
  if (reason) return reason;
  if (code === 1001) return 'the server is going away';
  if (code === 1006) return 'the connection was lost';
  if (code === 1008) return 'the server refused the stream';
  if (code === 1011) return 'the server had an error';
  if (code === 1012 || code === 1013) return 'the server asks to come back later';
  return `closed (${code})`;
}

export class Stream {
  /** Frames that were not understood; shown, never silent. */
  malformed = 0;

  #host: StreamHost;
  #socket: Socket | null = null;
  #timer: unknown = null;
  #cursor: string | null = null;
  #attempt = 0;
  #lostAt: number | null = null;
  #liveAt: number | null = null;

  constructor(host: StreamHost) {
    this.#host = host;
  }

  get cursor(): string | null {
    return this.#cursor;
  }

  /** Starts from `cursor`, or fresh with null. A running stream is replaced. */
  start(cursor: string | null = null): void {
    this.#drop();
    this.#cursor = cursor;
    this.#attempt = 0;
    this.#lostAt = null;
    this.#connect();
  }

  stop(): void {
    this.#drop();
    this.#host.state({ name: 'stopped' });
  }

  /** Ends a wait at once; does nothing while connected. */
  retryNow(): void {
    if (this.#socket !== null || this.#timer === null) return;
    this.#host.cancel(this.#timer);
    this.#timer = null;
    this.#connect();
  }

  #drop(): void {
    if (this.#timer !== null) this.#host.cancel(this.#timer);
    this.#timer = null;
    const socket = this.#socket;
    this.#socket = null;
    this.#liveAt = null;
    if (socket) {
      socket.onmessage = socket.onclose = socket.onerror = null;
      socket.close();
    }
  }

  #connect(): void {
    this.#host.state({ name: 'connecting', attempt: this.#attempt, since: this.#lostAt });
    let socket: Socket;
    try {
      socket = this.#host.open(this.#cursor);
    } catch (error) {
      this.#lost(error instanceof Error ? error.message : 'the connection cannot be opened');
      return;
    }
    this.#socket = socket;
    socket.onmessage = (event) => this.#message(event.data);
    socket.onclose = (event) => this.#lost(closeReason(event.code, event.reason));
    socket.onerror = null; // A close event always follows, and it has the reason.
    this.#timer = this.#host.after(HELLO_MS_MAX, () => {
      this.#timer = null;
      this.#lost('the server said no hello');
    });
  }

  #message(data: unknown): void {
    let frame: Frame | null = null;
    try {
      frame = typeof data === 'string' ? (JSON.parse(data) as Frame) : null;
    } catch {
      frame = null;
    }
    if (frame === null || typeof frame !== 'object' || typeof frame.type !== 'string') {
      this.malformed += 1;
      return;
    }
    if (frame.type === 'hello') this.#hello();
    if (typeof frame.cursor === 'string' && !this.#keepsCursor(frame)) this.#cursor = frame.cursor;
    this.#host.frame(frame);
  }

  /** Until the missed records have come, the old cursor is the one to come back with. */
  #keepsCursor(frame: Frame): boolean {
    return (frame.type === 'hello' || frame.type === 'resumed') && this.#cursor !== null;
  }

  #hello(): void {
    if (this.#timer !== null) this.#host.cancel(this.#timer);
    this.#timer = null;
    this.#lostAt = null;
    this.#liveAt = this.#host.now();
    this.#host.state({ name: 'live', at: this.#liveAt });
  }

  #lost(reason: string): void {
    const now = this.#host.now();
    if (this.#liveAt !== null && STABLE_MS <= now - this.#liveAt) this.#attempt = 0;
    this.#drop();
    this.#lostAt ??= now;
    const delay = retryDelay(this.#attempt, this.#host.random());
    this.#attempt += 1;
    this.#timer = this.#host.after(delay, () => {
      this.#timer = null;
      this.#connect();
    });
    this.#host.state({
      name: 'waiting',
      attempt: this.#attempt,
      since: this.#lostAt,
      retryAt: now + delay,
      reason,
    });
  }
}
