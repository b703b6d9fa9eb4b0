// One signed-in project on the screen: joins the stream to log rows and variables, once per
// animation frame, and tells components by version counters that something changed. Knows HTTP
// and the socket through their modules; draws nothing.

import { Activity } from './activity';
import { ApiError, getLogs, getServer, getVars, streamPath } from './api';
import { Edits } from './edits.svelte';
import { queryOf, type Filter } from './filter';
import { LogBuffer } from './logbuffer';
import { anyApplied } from './receipts';
import { Stream, type Socket, type StreamState } from './stream';
import type { Frame, LogRecord, ServerInfo } from './types';
import { VarsModel } from './vars';

/** Rows fetched for what was before the stream began. */
export const HISTORY_ROWS = 200;
/** Tries to read what was before the stream, and the pause between them, in milliseconds. */
const HISTORY_TRIES_MAX = 4;
const HISTORY_RETRY_MS = 1_000;
/** Longest time that live frames wait for these, in milliseconds: a slow store must not freeze the log. */
const HOLD_MS_MAX = 5_000;
/** Frames that wait for the next animation frame; past it the oldest records are dropped, as a gap. */
export const FRAMES_MAX = 400;
/** A hidden page draws no frames; this often it takes in what came, in milliseconds. */
const HIDDEN_FLUSH_MS = 500;

export type PauseCause = 'user' | 'scroll' | 'row';

/** Codes that no retry will cure: back to the sign-in. */
const REFUSED = ['unauthenticated', 'unknown_project', 'foreign_host', 'foreign_origin'];

/** What `work` gives, or null when it takes too long; it goes on regardless. */
function within<T>(ms: number, work: Promise<T>): Promise<T | null> {
  return Promise.race([work, new Promise<null>((late) => setTimeout(late, ms, null))]);
}

export class Console {
  readonly key: string;
  readonly buffer = new LogBuffer();
  readonly activity = new Activity();
  readonly vars = new VarsModel();
  readonly edits: Edits;

  /** Raised whenever rows, or their counts, changed. */
  logVersion = $state(0);
  /** Raised whenever devices or variables changed. */
  varsVersion = $state(0);
  /** Raised once a second: rates, chart, "5 m ago". */
  tick = $state(0);
  stream: StreamState = $state.raw({ name: 'stopped' });
  lastStream = $state('');
  pausedAt: number | null = $state(null);
  pauseCause: PauseCause | null = $state(null);
  cleared = $state(0);
  server: ServerInfo | null = $state.raw(null);
  loaded = $state(false);
  filterError: string | null = $state(null);
  /** The project had nothing when it was opened: the first steps are shown. */
  wasEmpty = $state(false);

  #refused: (reason: ApiError) => void;
  #machine: Stream;
  #frames: Frame[] = [];
  #held = false;
  #resuming = false;
  #scheduled = false;
  #filter: Filter;
  #query = '';
  #asked = 0;
  #readingVars: Promise<boolean> | null = null;
  #historyIds = new Set<string>();
  #done = { connected: false, line: false, variable: false, applied: false };
  #ticker: ReturnType<typeof setInterval> | undefined;
  #abort = new AbortController();

  constructor(key: string, filter: Filter, refused: (reason: ApiError) => void) {
    this.key = key;
    this.#filter = filter;
    this.#query = JSON.stringify(queryOf(filter));
    this.#refused = refused;
    this.edits = new Edits(key, this.vars, () => (this.varsVersion += 1));
    this.#machine = new Stream({
      open: (cursor) => this.#open(cursor),
      frame: (frame) => this.#frame(frame),
      state: (state) => this.#streamState(state),
      now: Date.now,
      random: Math.random,
      after: (ms, run) => setTimeout(run, ms),
      cancel: (timer) => clearTimeout(timer as number),
    });
  }

  start(): void {
    this.#machine.start();
    this.#ticker = setInterval(() => {
      this.activity.tick();
      this.tick += 1;
    }, 1000);
    const retry = () => this.#machine.retryNow();
    addEventListener('online', retry, { signal: this.#abort.signal });
    const seen = () => document.hidden || retry();
    document.addEventListener('visibilitychange', seen, { signal: this.#abort.signal });
    getServer().then((server) => (this.server = server), () => undefined);
  }

  stop(): void {
    this.#abort.abort();
    clearInterval(this.#ticker);
    this.#machine.stop();
  }

  /** Since when what is shown may be old, or null while the stream is up. */
  get staleSince(): number | null {
    return this.stream.name === 'waiting' || this.stream.name === 'connecting' ? this.stream.since : null;
  }

  retryNow(): void {
    this.#machine.retryNow();
  }

  get malformed(): number {
    return this.#machine.malformed;
  }

  /** Asks the server for another selection. A bad one leaves what is shown, and says why. */
  async setFilter(filter: Filter): Promise<void> {
    const query = JSON.stringify(queryOf(filter));
    const asked = ++this.#asked;
    if (query === this.#query) {
      this.filterError = null;
      return;
    }
    try {
      await getLogs(this.key, { ...queryOf(filter), limit: 1 }, this.#abort.signal);
    } catch (error) {
      if (this.#abort.signal.aborted || asked !== this.#asked) return;
      if (error instanceof ApiError && 400 <= error.problem.status && error.problem.status < 500) {
        this.filterError = error.message;
        return;
      }
    }
    if (this.#abort.signal.aborted || asked !== this.#asked) return; // Another filter was chosen meanwhile.
    this.filterError = null;
    this.#filter = filter;
    this.#query = query;
    this.#frames = [];
    this.buffer.reset();
    this.activity.reset();
    this.#pausedIs(null);
    this.cleared = 0;
    this.logVersion += 1;
    this.#machine.start();
  }

  pause(cause: PauseCause): void {
    if (this.buffer.paused) return;
    this.buffer.pause();
    this.#pausedIs(cause);
  }

  resume(): void {
    this.buffer.resume();
    this.#pausedIs(null);
  }

  clear(): void {
    this.cleared = this.buffer.length;
    this.buffer.clear();
    this.logVersion += 1;
  }

  undoClear(): void {
    this.buffer.undoClear();
    this.cleared = 0;
    this.logVersion += 1;
  }

  /** The first steps of a new project, in order; each is a fact that was seen. */
  steps(): { text: string; done: boolean }[] {
    this.#lookAtSteps();
    const { connected, line, variable, applied } = this.#done;
    return [
      { text: 'connected', done: connected },
      { text: 'first line', done: line },
      { text: 'first variable', done: variable },
      { text: 'first edit applied', done: applied },
    ];
  }

  /** What was seen once stays seen, also when the game leaves. */
  #lookAtSteps(): void {
    const done = this.#done;
    done.line ||= 0 < this.buffer.received;
    done.connected ||= done.line || 0 < this.vars.devices.size;
    done.variable ||= this.vars.declares;
    done.applied ||= anyApplied(this.vars);
  }

  #pausedIs(cause: PauseCause | null): void {
    this.pauseCause = cause;
    this.pausedAt = cause === null ? null : Date.now();
    this.logVersion += 1;
  }

  #open(cursor: string | null): Socket {
    this.#resuming = cursor !== null;
    const path = streamPath(this.key, { ...queryOf(this.#filter), ...(cursor === null ? {} : { cursor }) });
    return new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}${path}`) as unknown as Socket;
  }

  #streamState(state: StreamState): void {
    this.stream = state;
    // A socket that was refused gives no reason; the same question over HTTP does.
    if (state.name === 'waiting') this.#probe();
  }

  #probe(): void {
    getVars(this.key, this.#abort.signal).catch((error: unknown) => this.#isRefused(error));
  }

  #frame(frame: Frame): void {
    if (frame.type === 'hello') {
      if (!this.#resuming) void this.#fresh();
      return;
    }
    if (frame.type === 'resumed') {
      this.lastStream = `resumed ${new Date().toTimeString().slice(0, 8)}`;
      void this.#caughtUp();
      return;
    }
    if (frame.type === 'reset') {
      this.lastStream = `restarted ${new Date().toTimeString().slice(0, 8)}`;
      void this.#fresh(true);
      return;
    }
    this.#frames.push(frame);
    if (FRAMES_MAX < this.#frames.length) this.#shed();
    this.#schedule();
  }

  /** The page cannot keep up: the oldest log frame is given up, and shown as a gap. */
  #shed(): void {
    const index = this.#frames.findIndex((frame) => frame.type === 'logs');
    const frame = this.#frames[index];
    if (frame?.type !== 'logs') return;
    const before = this.#frames[index - 1];
    if (before?.type === 'gap' && before.reason === 'slow_page') {
      before.count += frame.items.length;
      this.#frames.splice(index, 1);
    } else {
      const gap: Frame = { type: 'gap', cursor: frame.cursor, count: frame.items.length, reason: 'slow_page' };
      this.#frames[index] = gap;
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#held) return;
    this.#scheduled = true;
    const run = () => {
      this.#scheduled = false;
      this.#flush();
    };
    if (document.hidden) setTimeout(run, HIDDEN_FLUSH_MS);
    else requestAnimationFrame(run);
  }

  #flush(): void {
    if (this.#held) return;
    const frames = this.#frames;
    this.#frames = [];
    let logs = false;
    let vars = false;
    for (const frame of frames) {
      if (frame.type === 'logs') {
        const items = this.#unseen(frame.items);
        this.buffer.push(items);
        this.activity.push(items);
        logs = true;
      } else if (frame.type === 'gap') {
        this.buffer.gap(frame.count, frame.reason);
        logs = true;
      } else if (frame.type === 'vars') {
        if (!this.vars.mergeVars(frame)) void this.#caughtUp();
        vars = true;
      } else if (frame.type === 'devices') {
        this.vars.mergeDevices(frame);
        vars = true;
      }
    }
    if (logs) this.logVersion += 1;
    if (vars && this.wasEmpty) this.#lookAtSteps();
    if (vars) this.varsVersion += 1;
  }

  /** What the history brought already is not shown twice. */
  #unseen(items: LogRecord[]): LogRecord[] {
    if (this.#historyIds.size === 0) return items;
    return items.filter((item) => !this.#historyIds.has(item.observer.id));
  }

  /** Reads what was before the stream; frames wait meanwhile, so that order holds. */
  async #fresh(lost = false): Promise<void> {
    this.#held = true;
    const query = this.#query;
    const read = await within(HOLD_MS_MAX, Promise.all([this.#readHistory(), this.#readVars()]));
    if (this.#abort.signal.aborted || query !== this.#query) return;
    const items = read?.[0] ?? null;
    if (items) this.#history(items, lost);
    else this.buffer.gap(0, 'no_history');
    if (!this.loaded && items && read?.[1]) {
      this.wasEmpty = items.length === 0 && this.vars.devices.size === 0 && this.vars.wanted.size === 0;
    }
    this.loaded = true;
    this.#release();
    this.logVersion += 1;
  }

  /** Variables may have changed unseen: reads them anew, while frames wait. */
  async #caughtUp(): Promise<void> {
    this.#held = true;
    await within(HOLD_MS_MAX, this.#readVars());
    this.#release();
  }

  #release(): void {
    this.#held = false;
    this.#flush();
  }

  async #readHistory(): Promise<LogRecord[] | null> {
    const asked = { ...queryOf(this.#filter), limit: HISTORY_ROWS };
    for (let attempt = 1; attempt <= HISTORY_TRIES_MAX; attempt++) {
      try {
        return (await getLogs(this.key, asked, this.#abort.signal)).items;
      } catch (error) {
        if (this.#abort.signal.aborted || this.#isRefused(error)) return null;
        await new Promise((done) => setTimeout(done, HISTORY_RETRY_MS));
      }
    }
    return null;
  }

  /** True: back to the sign-in, no retry will cure it. */
  #isRefused(error: unknown): boolean {
    if (!(error instanceof ApiError) || !REFUSED.includes(error.code)) return false;
    this.#refused(error);
    return true;
  }

  #history(items: LogRecord[], lost: boolean): void {
    const known = new Set<string>();
    for (let i = Math.max(0, this.buffer.length - HISTORY_ROWS); i < this.buffer.length; i++) {
      const row = this.buffer.at(i);
      if (row?.kind === 'log') known.add(row.record.observer.id);
    }
    this.#historyIds = new Set(items.map((item) => item.observer.id));
    const fresh = items.filter((item) => !known.has(item.observer.id)).reverse();
    if (lost && fresh.length === items.length && 0 < known.size) this.buffer.gap(0, 'reset');
    this.buffer.history(fresh);
    if (0 < items.length) this.#done.line = true;
  }

  /** Reads all variables; one request at a time, however many ask. */
  #readVars(): Promise<boolean> {
    this.#readingVars ??= this.#fetchVars().finally(() => (this.#readingVars = null));
    return this.#readingVars;
  }

  async #fetchVars(): Promise<boolean> {
    for (let attempt = 1; attempt <= HISTORY_TRIES_MAX; attempt++) {
      try {
        this.vars.replace(await getVars(this.key, this.#abort.signal));
        this.varsVersion += 1;
        return true;
      } catch (error) {
        if (this.#abort.signal.aborted || this.#isRefused(error)) return false;
        await new Promise((done) => setTimeout(done, HISTORY_RETRY_MS));
      }
    }
    return false;
  }
}
